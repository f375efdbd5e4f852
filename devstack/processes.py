"""Child processes of the embedded stack, the tests and the benchmark: started, awaited, stopped.

Only processes that were started here are ever signalled.
"""

import atexit
import ctypes
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import IO

import httpx2

CHECKOUT = Path(__file__).resolve().parents[1]
"""The root of the repository."""

_PR_SET_PDEATHSIG = 1
_NOT_EPHEMERAL = range(20_000, 32_000)
"""Ports below those that Linux, and any other system, assigns to a socket bound to port 0."""

_RESERVATIONS_AT_MOST = 100
"""The oldest ones are dropped: their servers have long started."""
_reservations: deque[socket.socket] = deque()

_POLL_SECONDS = 0.03
_START_SECONDS = 45.0
_STOP_SECONDS = 20.0
_TAIL_LINES = 15


class DevstackError(Exception):
    """A failure that the developer has to fix. The message says how, and may end with a log."""


class Stopped(BaseException):
    """Ctrl-C or SIGTERM has arrived. Not an `Exception`, so that no error handler catches it."""


def free_port() -> int:
    """Return a port of 127.0.0.1 that nothing listens on."""
    (port,) = free_ports(1)
    return port


def free_ports(count: int) -> list[int]:
    """Return several free ports, all different.

    None is an ephemeral port: until a process listens on it, seconds pass, in which other tests
    open hundreds of connections and servers. Meanwhile no other process gets the same port from
    here: this one keeps a socket bound to it, beside which a server with SO_REUSEADDR can listen.
    """
    candidates = random.SystemRandom().sample(_NOT_EPHEMERAL, len(_NOT_EPHEMERAL))
    reserved = list(islice(filter(None, map(_reserve, candidates)), count))
    _reservations.extend(reserved)
    while len(_reservations) > _RESERVATIONS_AT_MOST:
        _reservations.popleft().close()
    return [each.getsockname()[1] for each in reserved]


def _reserve(port: int) -> socket.socket | None:
    """Return a socket bound to the port; None if another socket is."""
    reservation = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        reservation.bind(("127.0.0.1", port))
    except OSError:
        reservation.close()
        return None
    reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return reservation


@atexit.register
def _drop_reservations() -> None:
    while _reservations:
        _reservations.popleft().close()


def is_free(port: int) -> bool:
    """True if a server can listen on this port of 127.0.0.1; one in TIME_WAIT counts as free."""
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def stop_with_parent(signal_number: signal.Signals) -> Callable[[], None] | None:
    """Return a `preexec_fn` for `Popen`: the kernel signals the child when the parent ends.

    It watches the thread that starts the child, so it is None outside the main thread, and on
    systems other than Linux.
    """
    if sys.platform != "linux" or threading.current_thread() is not threading.main_thread():
        return None
    # Loaded before the fork: between fork and exec only the call itself is safe.
    prctl = ctypes.CDLL(None).prctl

    def request_signal() -> None:
        prctl(_PR_SET_PDEATHSIG, int(signal_number))

    return request_signal


def spawn_detached(
    command: Sequence[str],
    log: IO[bytes],
    *,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    at_parents_end: signal.Signals = signal.SIGTERM,
) -> subprocess.Popen[bytes]:
    """Start a process that Ctrl-C does not reach, and that does not outlive its parent."""
    return subprocess.Popen(
        command,
        env=None if environment is None else dict(environment),
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        # Ctrl-C in a terminal signals the whole group; the parent stops its children in order.
        start_new_session=True,
        preexec_fn=stop_with_parent(at_parents_end),  # noqa: PLW1509  (it makes one call)
    )


class ChildProcess:
    """One command, with its output in a file; after `stop`, `start` runs it again."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        log_path: Path,
        is_detached: bool = True,
        appends_to_log: bool = False,
    ) -> None:
        """`is_detached` as `spawn_detached` does.

        False in a parent with several threads, where a `preexec_fn` is not safe.
        """
        self.name = name
        self.log_path = log_path
        self._command = tuple(command)
        self._environment = environment
        self._is_detached = is_detached
        self._log_mode = "ab" if appends_to_log else "wb"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process id; None while it does not run."""
        running = self._process is not None and self._process.poll() is None
        return self._process.pid if self._process and running else None

    def exit_code(self) -> int | None:
        """Return the exit code; None while it runs, or before the first start."""
        return None if self._process is None else self._process.poll()

    def start(self) -> None:
        """Start the process, and return immediately."""
        assert self.pid is None, f"{self.name} is running already"
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        with self.log_path.open(self._log_mode) as log:
            if self._is_detached:
                self._process = spawn_detached(self._command, log, environment=self._environment)
                return
            self._process = subprocess.Popen(
                self._command,
                env=dict(self._environment),
                cwd=CHECKOUT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def stop(self, *, within: float = _STOP_SECONDS) -> int | None:
        """Send SIGTERM and return the exit code; None if the process was not started.

        Raises `subprocess.TimeoutExpired`, once it was killed, if it did not end within `within`
        seconds.
        """
        process, self._process = self._process, None
        if process is None:
            return None
        if process.poll() is None:
            process.terminate()
        try:
            return process.wait(within)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise

    def kill(self) -> None:
        """Send SIGKILL, as a crash would look."""
        process, self._process = self._process, None
        assert process is not None, f"{self.name} is not running"
        process.kill()
        process.wait(_STOP_SECONDS)

    def wait_until_answering(
        self,
        url: str,
        *,
        within: float = _START_SECONDS,
        stopping: threading.Event | None = None,
    ) -> None:
        """Return once `url` answers 200.

        Raises `DevstackError` if the process ends, or takes more than `within` seconds; `Stopped`
        when `stopping` is set.
        """
        answered = "nothing"

        def is_answering() -> bool:
            nonlocal answered
            try:
                answer = http.get(url)
            except httpx2.HTTPError:
                return False
            answered = f"{answer.status_code} {answer.text.strip()[:2000]}"
            return answer.status_code == 200

        with httpx2.Client(trust_env=False, timeout=5) as http:
            if not self._wait_until(is_answering, within, stopping):
                raise DevstackError(
                    f"{self.name} is not ready after {within:.0f} s; {url} answers: {answered}\n"
                    + self.end_of_log()
                )

    def wait_until_listening(self, port: int, *, within: float = _START_SECONDS) -> None:
        """Return once the process listens on a port of 127.0.0.1. Raises `DevstackError`."""

        def is_listening() -> bool:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
            except OSError:
                return False
            return True

        if not self._wait_until(is_listening, within, None):
            raise DevstackError(
                f"{self.name} does not listen after {within:.0f} s\n" + self.end_of_log()
            )

    def _wait_until(
        self, is_ready: Callable[[], bool], within: float, stopping: threading.Event | None
    ) -> bool:
        never = threading.Event()
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            if (stopping or never).wait(_POLL_SECONDS):
                raise Stopped
            self.raise_if_ended()
            if is_ready():
                return True
        return False

    def finish(self, stopping: threading.Event) -> None:
        """Wait until the process ends by itself. Raises `DevstackError` if it fails, `Stopped`."""
        while self.exit_code() is None:
            if stopping.wait(_POLL_SECONDS):
                raise Stopped
        if self.exit_code() != 0:
            self.raise_if_ended()

    def raise_if_ended(self) -> None:
        """Raise `DevstackError` if the process has ended."""
        code = self.exit_code()
        if code is not None:
            raise DevstackError(f"{self.name} {_ended(code)}\n{self.end_of_log()}")

    def end_of_log(self) -> str:
        """Return the log's last lines, under a line with the file's name."""
        lines = self.log_path.read_text(encoding="utf-8", errors="replace").splitlines()
        if not lines:
            return f"It wrote nothing to {self.log_path}."
        return "\n".join(
            (f"The end of {self.log_path}:", *(f"  {x}" for x in lines[-_TAIL_LINES:]))
        )


def _ended(code: int) -> str:
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"ended unexpectedly (exit code {code})"
