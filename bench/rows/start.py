"""`broker serve`, from its start until `/readyz` returns 200."""

import subprocess
import sys
import time
import urllib.error
import urllib.request
from statistics import median

from bench.environment import BenchEnvironment
from bench.rows.plan import Plan
from bench.servers import BenchError, cpu_seconds_of
from bench.table import Bound, Figure, Sense
from devstack.processes import free_port

_POLL_SECONDS = 0.01
_LIMIT_SECONDS = 60


def measure_start(plan: Plan, environment: BenchEnvironment) -> list[Figure]:
    """Measure the median of several starts on the server's core."""
    url = environment.new_database()
    starts = [_start(environment, url) for _ in range(plan.repetitions(7))]
    return [
        Figure(
            "start",
            "broker serve from start to ready",
            median(seconds for seconds, _ in starts),
            Bound(Sense.AT_MOST, 1.5, "s"),
            {
                "slowest s": max(seconds for seconds, _ in starts),
                "CPU time s": median(cpu for _, cpu in starts),
            },
        )
    ]


def _start(environment: BenchEnvironment, url: str) -> tuple[float, float]:
    """Return wall-clock seconds and CPU seconds."""
    ready = f"http://127.0.0.1:{(ops := free_port())}/readyz"
    variables = {
        **environment.settings(url),
        "BROKER_PUBLIC_LISTEN": f"127.0.0.1:{free_port()}",
        "BROKER_INTERNAL_LISTEN": f"127.0.0.1:{free_port()}",
        "BROKER_OPS_LISTEN": f"127.0.0.1:{ops}",
    }
    began = time.perf_counter()
    with environment.starting(), (environment.folder / "start.log").open("wb") as log:
        process = subprocess.Popen(
            (sys.executable, "-m", "broker.cli", "serve"),
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        while not _is_ready(ready):
            if process.poll() is not None or time.perf_counter() - began > _LIMIT_SECONDS:
                raise BenchError("broker serve did not become ready")
            time.sleep(_POLL_SECONDS)
        return time.perf_counter() - began, cpu_seconds_of(process.pid)
    finally:
        process.terminate()
        process.wait(30)


def _is_ready(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
