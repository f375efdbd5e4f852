"""A child process of `make run`: its log in a file, its end in our hand."""

import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path

import httpx2

from devstack.failures import DevstackError, Stopped
from devstack.lifelines import end_with_parent

_START_LIMIT = timedelta(seconds=45)
_STOP_LIMIT = timedelta(seconds=20)
_POLL_SECONDS = 0.03
_TAIL_LINES = 15


class Child:
    """One command, its output in `log_path`."""

    def __init__(
        self, name: str, command: Sequence[str], *, environment: Mapping[str, str], log_path: Path
    ) -> None:
        self.name = name
        self._command = tuple(command)
        self._environment = environment
        self._log_path = log_path
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._log_path.parent.mkdir(parents=True, exist_ok=True)
        with self._log_path.open("wb") as log:
            self._process = subprocess.Popen(
                self._command,
                env=dict(self._environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C in a terminal goes to the whole group; we decide what stops when.
                start_new_session=True,
                preexec_fn=end_with_parent(signal.SIGTERM),  # noqa: PLW1509  (it makes one call)
            )

    def exit_code(self) -> int | None:
        """None while it runs, or was never started."""
        return None if self._process is None else self._process.poll()

    def stop(self) -> None:
        """End it and wait; it is killed if it won't go."""
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.terminate()
        try:
            process.wait(_STOP_LIMIT.total_seconds())
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def wait_until_answering(self, url: str, stopping: threading.Event) -> None:
        """Return once `url` answers 200. Raises `DevstackError`, or `Stopped` when asked to."""
        deadline = time.monotonic() + _START_LIMIT.total_seconds()
        said = "nothing"
        with httpx2.Client(trust_env=False, timeout=5) as http:
            while time.monotonic() < deadline:
                if stopping.wait(_POLL_SECONDS):
                    raise Stopped
                self.raise_if_ended()
                try:
                    answer = http.get(url)
                except httpx2.HTTPError:
                    continue
                if answer.status_code == 200:
                    return
                said = f"{answer.status_code} {answer.text.strip()[:2000]}"
        raise DevstackError(
            f"{self.name} is not ready after {_START_LIMIT.seconds} s; {url} says: {said}\n"
            + self.end_of_log()
        )

    def finish(self, stopping: threading.Event) -> None:
        """Wait for it to end well by itself. Raises as `wait_until_answering` does."""
        while self.exit_code() is None:
            if stopping.wait(_POLL_SECONDS):
                raise Stopped
        if self.exit_code() != 0:
            self.raise_if_ended()

    def raise_if_ended(self) -> None:
        code = self.exit_code()
        if code is not None:
            raise DevstackError(f"{self.name} {_ended(code)}\n{self.end_of_log()}")

    def end_of_log(self) -> str:
        """The log's last lines, under a line that names the file."""
        lines = self._log_path.read_text(encoding="utf-8", errors="replace").splitlines()
        if not lines:
            return f"It wrote nothing to {self._log_path}."
        return "\n".join(
            (f"The end of {self._log_path}:", *(f"  {x}" for x in lines[-_TAIL_LINES:]))
        )


def _ended(code: int) -> str:
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"stopped by itself (exit code {code})"
