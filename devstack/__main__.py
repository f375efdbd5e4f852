"""`make run`: the whole broker on this machine, from nothing, until Ctrl-C."""

import fcntl
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from devstack.closing_words import closing_words
from devstack.failures import DevstackError, Stopped
from devstack.keepsakes import Keepsakes
from devstack.narration import Narrator
from devstack.plan import Plan, make_plan, refuse_taken_ports
from devstack.world import World

_CHECKOUT = Path(__file__).resolve().parents[1]


def main() -> int:
    """Exit codes: 0 stopped as asked, 1 something failed, with the reason said."""
    narrator = Narrator(sys.stdout)
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: stopping.set())
    try:
        plan = make_plan(os.environ)
        keepsakes = _open_folder(Path(os.environ.get("DEVSTACK_FOLDER") or _CHECKOUT / ".devstack"))
        with _only_one(keepsakes):
            refuse_taken_ports(plan)
            _run(plan, keepsakes, narrator, stopping)
    except DevstackError as error:
        narrator.complain(str(error))
        return 1
    except Stopped:
        pass
    return 0


def _run(plan: Plan, keepsakes: Keepsakes, narrator: Narrator, stopping: threading.Event) -> None:
    world = World(plan, keepsakes, narrator, stopping)
    started = time.monotonic()
    try:
        narrator.heading("Starting the token broker")
        world.start()
        narrator.heading(f"Ready in {time.monotonic() - started:.1f} s")
        narrator.say()
        key = keepsakes.path("demo-key").read_text(encoding="utf-8")
        narrator.say(closing_words(plan, key, keepsakes.folder))
        world.watch()
    finally:
        narrator.say()
        world.stop()


def _open_folder(folder: Path) -> Keepsakes:
    try:
        return Keepsakes(folder)
    except OSError as error:
        raise DevstackError(
            f"Can't keep data in {folder}: {error.strerror}; does it belong to another user?"
        ) from error


@contextmanager
def _only_one(keepsakes: Keepsakes) -> Iterator[None]:
    """Held while we run, and let go by the kernel however we end."""
    with keepsakes.path("lock").open("a+", encoding="ascii") as file:
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
