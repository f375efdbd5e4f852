"""A server process that is measured: started, waited for, its processor time read, stopped."""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import psutil

from devstack.lifelines import end_with_parent

_START_SECONDS = 30.0
_STOP_SECONDS = 15.0


class BenchError(Exception):
    """The benchmark can't go on; the message is for a person to read."""


class ServerProcess:
    """`python …` in a process of its own, whose log goes to a file."""

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str],
        port: int,
        log_path: Path,
    ) -> None:
        self.name = name
        self.port = port
        self.ops_port = 0
        """Where a broker has its ops listener."""
        self._log_path = log_path
        with log_path.open("wb") as log:
            self._process = subprocess.Popen(
                (sys.executable, *arguments),
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=end_with_parent(signal.SIGTERM),  # noqa: PLW1509  (it makes one call)
            )

    def __enter__(self) -> Self:
        try:
            self._wait_until_listening()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    @property
    def pid(self) -> int:
        return self._process.pid

    def cpu_seconds(self) -> float:
        """Processor time that the process has used so far."""
        return cpu_seconds_of(self.pid)

    def _wait_until_listening(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise BenchError(f"{self.name} ended by itself:\n{self._end_of_log()}")
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.03)
        raise BenchError(f"{self.name} did not start:\n{self._end_of_log()}")

    def _end_of_log(self) -> str:
        return "\n".join(self._log_path.read_text(errors="replace").splitlines()[-15:])

    def _stop(self) -> None:
        if self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def cpu_seconds_of(pid: int | None) -> float:
    """Processor time that a process has used so far."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_free(port: int) -> bool:
    """Whether nobody listens on a port of 127.0.0.1 just now."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0
