"""`broker` and other programs as processes, started with a clean environment."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import httpx2

from broker.outbound.http_client import default_tls_context
from devstack.processes import CHECKOUT, ChildProcess, DevstackError, free_port, free_ports

__all__ = ["CHECKOUT", "free_port", "free_ports"]

START_LIMIT_SECONDS = 90.0
STOP_LIMIT_SECONDS = 60.0

_POLL_SECONDS = 0.05
_SETTINGS = re.compile(
    r"(?i)^(GOOGLE_|BROKER_|VAULT_|BAO_|AWS_|DATABASE_|PG|SECRET_KEY|(https?|all|no)_proxy$)"
)
"""Variables that a test must not inherit from the developer's environment."""


def clean_environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Return this process's environment without settings of the broker, and with `settings`."""
    kept = {name: value for name, value in os.environ.items() if not _SETTINGS.match(name)}
    return {**kept, "PYTHONUNBUFFERED": "1", **settings}


def run_broker(
    *arguments: str,
    settings: Mapping[str, str],
    timeout: float = START_LIMIT_SECONDS,
    module: str = "broker.cli",
) -> subprocess.CompletedProcess[str]:
    """Run a `broker` command until it ends."""
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


@contextmanager
def started(
    command: Sequence[str], *, log: Path, settings: Mapping[str, str] | None = None
) -> Iterator[ChildProcess]:
    """Start another program, and stop it when the block ends; its output goes to `log`."""
    process = ChildProcess(
        command[0],
        command,
        environment=clean_environment(settings or {}),
        log_path=log,
        is_detached=False,
    )
    process.start()
    try:
        yield process
    finally:
        with suppress(subprocess.TimeoutExpired):
            process.stop()


@contextmanager
def running(
    command: Sequence[str], *, answers_at: str, log: Path, settings: Mapping[str, str] | None = None
) -> Iterator[None]:
    """Run another server; enter the block once `answers_at` returns 200."""
    with started(command, log=log, settings=settings) as process:
        process.wait_until_answering(answers_at, within=START_LIMIT_SECONDS)
        yield


@dataclass(frozen=True)
class Ports:
    """The ports of the three listeners, on 127.0.0.1."""

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
    """One `broker serve`; after `stop`, `start` starts another one on the same ports."""

    settings: Mapping[str, str]
    output_path: Path
    """The file that receives stdout and stderr of every start."""
    ports: Ports = field(default_factory=Ports.free)
    module: str = "broker.cli"
    """The module that Python runs; a test may replace it with a wrapper."""
    _process: ChildProcess | None = field(default=None, init=False, repr=False)

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
        """Its output so far."""
        return self.output_path.read_text(encoding="utf-8", errors="replace")

    @property
    def pid(self) -> int | None:
        """The process id; None while it does not run."""
        return self._process.pid if self._process is not None else None

    def start(self) -> None:
        """Return once it is ready. Fails with its output if it ends, or takes too long."""
        self.launch()
        self.wait_until_ready()

    def launch(self) -> None:
        """Start without waiting, so that several can start in parallel."""
        assert self.pid is None, "it is running already"
        self._process = ChildProcess(
            "broker serve",
            (sys.executable, "-m", self.module, "serve"),
            environment=clean_environment({**self.settings, **self.ports.settings()}),
            log_path=self.output_path,
            is_detached=False,
            appends_to_log=True,
        )
        self._process.start()

    def wait_until_ready(self) -> None:
        """Wait for the end of a `launch`."""
        assert self._process is not None
        try:
            self._process.wait_until_answering(f"{self.ops_url}/readyz", within=START_LIMIT_SECONDS)
        except DevstackError as error:
            self.stop()
            raise AssertionError(f"{error}\n{self.output}") from error
        except BaseException:
            self.stop()
            raise

    def stop(self) -> int | None:
        """Send SIGTERM and return the exit status; None if it was not running."""
        return self._process.stop(within=STOP_LIMIT_SECONDS) if self._process is not None else None

    def kill(self) -> None:
        """Send SIGKILL, as a crash would look."""
        assert self._process is not None, "it is not running"
        self._process.kill()

    def metric(self, name: str, **labels: str) -> float:
        """Return a sample as Prometheus scrapes it; 0 if there is none yet."""
        wanted = {f'{label}="{value}"' for label, value in labels.items()}
        for line in self._get("/metrics").text.splitlines():
            found = re.fullmatch(rf"{re.escape(name)}(?:{{(.*)}})? (\S+)", line)
            if found and wanted <= set((found[1] or "").split(",")):
                return float(found[2])
        return 0.0

    def readiness(self) -> httpx2.Response:
        return self._get("/readyz")

    def _get(self, path: str) -> httpx2.Response:
        # Loaded once: it takes 50 ms, and `wait_until` asks often.
        trust = default_tls_context()
        return httpx2.get(self.ops_url + path, timeout=10, trust_env=False, verify=trust)


def wait_until(
    condition: str, holds: Callable[[], bool], *, within: float = START_LIMIT_SECONDS
) -> None:
    """Return once another process is in a state; fail after `within` seconds, and name it."""
    deadline = time.monotonic() + within
    while not holds():
        assert time.monotonic() < deadline, f"not within {within} s: {condition}"
        time.sleep(_POLL_SECONDS)
