"""`make run`: the whole broker on this machine, with nothing pre-installed, until Ctrl-C."""

import fcntl
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from devstack.console import Console, usage
from devstack.data_folder import DataFolder
from devstack.plan import Plan, make_plan, refuse_taken_ports
from devstack.processes import CHECKOUT, DevstackError, Stopped
from devstack.stack import EmbeddedStack


def main() -> int:
    """Return the exit code: 0 if it was stopped, 1 if something failed, which is printed."""
    console = Console(sys.stdout)
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: stopping.set())
    try:
        plan = make_plan(os.environ)
        data = _open_folder(Path(os.environ.get("DEVSTACK_FOLDER") or CHECKOUT / ".devstack"))
        with _locked(data):
            refuse_taken_ports(plan)
            _run(plan, data, console, stopping)
    except DevstackError as error:
        console.error(str(error))
        return 1
    except Stopped:
        pass
    return 0


def _run(plan: Plan, data: DataFolder, console: Console, stopping: threading.Event) -> None:
    stack = EmbeddedStack(plan, data, console, stopping)
    started = time.monotonic()
    try:
        console.heading("Starting the token broker")
        stack.start()
        console.heading(f"Ready in {time.monotonic() - started:.1f} s")
        console.line()
        key = data.file("demo-key").read_text(encoding="utf-8")
        console.line(usage(plan, key, data.path))
        stack.watch()
    finally:
        console.line()
        stack.stop()


def _open_folder(path: Path) -> DataFolder:
    try:
        return DataFolder(path)
    except OSError as error:
        raise DevstackError(
            f"Can't keep data in {path}: {error.strerror}; does it belong to another user?"
        ) from error


@contextmanager
def _locked(data: DataFolder) -> Iterator[None]:
    """Hold the folder's lock; the kernel releases it however this process ends."""
    with data.file("lock").open("a+", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise DevstackError(
                f"`make run` is running in this checkout already (process {file.read().strip()}); "
                "stop it there with Ctrl-C first"
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


if __name__ == "__main__":
    sys.exit(main())
