"""Other people's servers that a test needs for a while: started on loopback, and always ended."""

import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx2

from tests.support.processes import clean_environment

_START_LIMIT_SECONDS = 60.0
_POLL_SECONDS = 0.05


@contextmanager
def running(
    command: Sequence[str], *, answers_at: str, log: Path, settings: Mapping[str, str] | None = None
) -> Iterator[None]:
    """The server, from when `answers_at` gives 200; both its streams go into `log`."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env=clean_environment(settings or {}),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            _wait_until_ready(process, answers_at, log)
            yield
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    deadline = time.monotonic() + _START_LIMIT_SECONDS
    while not _answers(address):
        said = log.read_text(encoding="utf-8", errors="replace")
        assert process.poll() is None, f"it ended: {said}"
        assert time.monotonic() < deadline, f"no answer from {address}: {said}"
        time.sleep(_POLL_SECONDS)


def _answers(address: str) -> bool:
    try:
        return httpx2.get(address, trust_env=False).status_code == 200
    except httpx2.TransportError:
        return False
