"""The fast path compared with a bare ASGI app, and with OpenBao serving a secret."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from bench.alternation import alternate, failures_in, rate_ratio
from bench.answers import ask_once
from bench.cores import starting_on
from bench.environment import BenchEnvironment
from bench.load import Round, run_round
from bench.rows.plan import Plan
from bench.sample_grants import CLIENT_ID
from bench.servers import BenchError, cpu_seconds_of
from bench.table import Bound, Figure, Sense
from broker.secret import Secret
from devstack.openbao import OpenBao

_CONNECTIONS = 32


def measure_bare(plan: Plan) -> list[Figure]:
    """Run `python -m bench.warm`, whose own report has more detail."""
    amount = ("--rounds=1", "--seconds=0.3") if plan.quick else ()
    done = subprocess.run(
        (sys.executable, "-m", "bench.warm", "--json", *amount),
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if not done.stdout:
        raise BenchError("python -m bench.warm did not finish")
    outcome = json.loads(done.stdout)
    return [
        Figure(
            "warm",
            "warm fetch ÷ a bare ASGI app",
            outcome["ratio"],
            Bound(Sense.AT_LEAST, 0.85),
            failures=outcome["failures"],
        )
    ]


def measure_openbao(plan: Plan, environment: BenchEnvironment) -> list[Figure]:
    """Compare with a secret read from a KV v2 store, with the same client and core."""
    url = environment.new_database()
    users = environment.fill(url, _CONNECTIONS)
    with _vault(plan) as vault, environment.broker(url) as broker:
        requests = [environment.request(broker, user_id) for user_id in users]
        for request in requests:
            ask_once(broker.port, request)
        read = _kv_request(vault)
        vault_port = int(vault.address.rsplit(":", 1)[1])

        def measure(port: int, asked: list[bytes], pid: int | None) -> Round:
            return run_round(
                port,
                asked,
                warm_up=0.2 if plan.quick else 1.0,
                seconds=plan.seconds(3.0),
                cpu_seconds=partial(cpu_seconds_of, pid),
            )

        pairs = alternate(
            lambda: measure(broker.port, requests, broker.pid),
            lambda: measure(vault_port, [read] * _CONNECTIONS, vault.pid),
            plan.repetitions(5),
        )
    return [
        Figure(
            "openbao",
            "warm fetch ÷ a KV v2 read from OpenBao",
            rate_ratio(pairs),
            Bound(Sense.AT_LEAST, 4),
            {
                "tokens a second": round(max(a.rate for a, _ in pairs)),
                "secrets a second": round(max(b.rate for _, b in pairs)),
            },
            failures=failures_in(pairs),
        )
    ]


@contextmanager
def _vault(plan: Plan) -> Iterator[OpenBao]:
    """Run OpenBao on the core of the measured server."""
    vault = OpenBao(home=plan.folder / "openbao")
    try:
        with starting_on(plan.cores.server if plan.cores else None):
            vault.start()
        vault.put_google_client(CLIENT_ID, Secret("GOCSPX-a-secret-of-usual-length"))
        yield vault
    finally:
        vault.stop()


def _kv_request(vault: OpenBao) -> bytes:
    address = vault.address.removeprefix("http://")
    return (
        "GET /v1/secret/data/token-broker/google HTTP/1.1\r\n"
        f"Host: {address}\r\n"
        f"X-Vault-Token: {vault.root_token.reveal()}\r\n\r\n"
    ).encode()
