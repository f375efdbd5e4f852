"""Real `broker` processes: started with an environment of their own, watched, and always ended.

No process but those started here is ever signalled.
"""

import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Self

import httpx2

CHECKOUT = Path(__file__).resolve().parents[2]
START_LIMIT_SECONDS = 90.0
STOP_LIMIT_SECONDS = 60.0

_POLL_SECONDS = 0.05
_NEVER_GIVEN = range(20_000, 32_000)
"""Ports below those that Linux, and any other system, gives to who asks for port 0."""
_OURS = re.compile(
    r"(?i)^(GOOGLE_|BROKER_|VAULT_|BAO_|AWS_|DATABASE_|PG|SECRET_KEY|(https?|all|no)_proxy$)"
)
"""What a developer's own environment may hold and a test must not hear of."""


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    (port,) = free_ports(1)
    return port


def free_ports(count: int) -> list[int]:
    """Several, all different.

    None that the system gives to whoever takes any: until a process listens there, seconds go by
    in which other tests make connections and servers by the hundred.
    """
    candidates = random.SystemRandom().sample(_NEVER_GIVEN, len(_NEVER_GIVEN))
    return list(islice(filter(_is_free, candidates), count))


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def clean_environment(settings: Mapping[str, str]) -> dict[str, str]:
    """This process's environment without any setting of the broker's, and then `settings`."""
    kept = {name: value for name, value in os.environ.items() if not _OURS.match(name)}
    return {**kept, "PYTHONUNBUFFERED": "1", **settings}


def run_broker(
    *arguments: str,
    settings: Mapping[str, str],
    timeout: float = START_LIMIT_SECONDS,
    module: str = "broker.cli",
) -> subprocess.CompletedProcess[str]:
    """Run a command of `broker` to its end."""
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=CHECKOUT,
        env=clean_environment(settings),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@dataclass(frozen=True)
class Ports:
    """Where the three listeners are, on 127.0.0.1."""

    public: int
    internal: int
    ops: int

    @classmethod
    def free(cls) -> Self:
        return cls(*free_ports(3))

    def settings(self) -> dict[str, str]:
        return {
            "BROKER_PUBLIC_LISTEN": f"127.0.0.1:{self.public}",
            "BROKER_INTERNAL_LISTEN": f"127.0.0.1:{self.internal}",
            "BROKER_OPS_LISTEN": f"127.0.0.1:{self.ops}",
        }


@dataclass
class BrokerProcess:
    """One `broker serve`; after `stop`, `start` makes another on the same ports."""

    settings: Mapping[str, str]
    output_path: Path
    """Takes stdout and stderr, of every start."""
    ports: Ports = field(default_factory=Ports.free)
    module: str = "broker.cli"
    """What Python runs; a test's own launcher changes the world before it runs the same."""
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False, repr=False)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def public_url(self) -> str:
        return f"http://127.0.0.1:{self.ports.public}"

    @property
    def internal_url(self) -> str:
        return f"http://127.0.0.1:{self.ports.internal}"

    @property
    def ops_url(self) -> str:
        return f"http://127.0.0.1:{self.ports.ops}"

    @property
    def output(self) -> str:
        """All that it said so far."""
        return self.output_path.read_text(encoding="utf-8", errors="replace")

    @property
    def pid(self) -> int | None:
        """Its process id, while it runs."""
        running = self._process is not None and self._process.poll() is None
        return self._process.pid if self._process and running else None

    def start(self) -> None:
        """Return once it is ready; fail with what it said if it ends or dawdles instead."""
        self.launch()
        self.wait_until_ready()

    def launch(self) -> None:
        """Begin to start, for those who start several at once."""
        assert self.pid is None, "it runs already"
        with self.output_path.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", self.module, "serve"],
                cwd=CHECKOUT,
                env=clean_environment({**self.settings, **self.ports.settings()}),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def wait_until_ready(self) -> None:
        """The rest of `start`."""
        try:
            self._poll_until_ready()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> int | None:
        """SIGTERM, and its exit status; None if it was not running."""
        process, self._process = self._process, None
        if process is None:
            return None
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            return process.wait(STOP_LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise

    def kill(self) -> None:
        """SIGKILL: what a crash looks like."""
        process, self._process = self._process, None
        assert process is not None, "it does not run"
        process.kill()
        process.wait(STOP_LIMIT_SECONDS)

    def metric(self, name: str, **labels: str) -> float:
        """A sample's value as Prometheus scrapes it; 0 when there is none yet."""
        wanted = {f'{label}="{value}"' for label, value in labels.items()}
        for line in self._get("/metrics").text.splitlines():
            found = re.fullmatch(rf"{re.escape(name)}(?:{{(.*)}})? (\S+)", line)
            if found and wanted <= set((found[1] or "").split(",")):
                return float(found[2])
        return 0.0

    def readiness(self) -> httpx2.Response:
        return self._get("/readyz")

    def _get(self, path: str) -> httpx2.Response:
        return httpx2.get(self.ops_url + path, timeout=10, trust_env=False)

    def _poll_until_ready(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + START_LIMIT_SECONDS
        while not self._is_ready():
            assert self._process.poll() is None, f"`broker serve` ended:\n{self.output}"
            assert time.monotonic() < deadline, f"`broker serve` is not ready:\n{self.output}"
            time.sleep(_POLL_SECONDS)

    def _is_ready(self) -> bool:
        try:
            return self.readiness().status_code == 200
        except httpx2.TransportError:
            return False


def wait_until(
    what: str, holds: Callable[[], bool], *, within: float = START_LIMIT_SECONDS
) -> None:
    """Return once another process has come to a state; fail, naming it, when that takes longer."""
    deadline = time.monotonic() + within
    while not holds():
        assert time.monotonic() < deadline, f"not within {within} s: {what}"
        time.sleep(_POLL_SECONDS)
