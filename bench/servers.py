"""A measured server process: start, wait, CPU time, stop."""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

import psutil

from devstack.processes import ChildProcess, DevstackError

_START_SECONDS = 30.0
_STOP_SECONDS = 15.0


class BenchError(Exception):
    """The benchmark can't continue; the message says why."""


class ServerProcess:
    """A `python …` process with its log in a file."""

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str],
        port: int,
        log_path: Path,
    ) -> None:
        """Start the process on the cores that new processes inherit."""
        self.port = port
        self.ops_port = 0
        """The ops listener's port, for a broker."""
        self._process = ChildProcess(
            name, (sys.executable, *arguments), environment=environment, log_path=log_path
        )
        self._process.start()

    def __enter__(self) -> Self:
        try:
            self._process.wait_until_listening(self.port, within=_START_SECONDS)
        except DevstackError as error:
            self._stop()
            raise BenchError(str(error)) from error
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    @property
    def name(self) -> str:
        return self._process.name

    @property
    def pid(self) -> int:
        pid = self._process.pid
        if pid is None:
            raise BenchError(f"{self.name} ended by itself")
        return pid

    def cpu_seconds(self) -> float:
        """Return the CPU seconds that the process has used so far."""
        return cpu_seconds_of(self.pid)

    def _stop(self) -> None:
        with suppress(subprocess.TimeoutExpired):
            self._process.stop(within=_STOP_SECONDS)


def cpu_seconds_of(pid: int | None) -> float:
    """Return the CPU seconds that a process has used so far."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)
