"""`broker`, in a process that prints its changes of the file system to stderr."""

import os
import sys
from typing import Any

_CHANGES = frozenset(
    {
        *("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink"),
        *("os.truncate", "os.chmod", "os.chown", "os.utime", "tempfile.mkstemp"),
        *("tempfile.mkdtemp", "shutil.copyfile", "shutil.move", "os.mkfifo"),
    }
)
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def _report_change(event: str, arguments: tuple[Any, ...]) -> None:
    if event in _CHANGES or (event == "open" and _is_writing(*arguments)):
        sys.stderr.write(f"CHANGES FILES: {event} {arguments[0]!r}\n")


def _is_writing(path: object, _mode: object, flags: object) -> bool:
    return isinstance(flags, int) and bool(flags & _WRITING) and path != os.devnull


if __name__ == "__main__":
    sys.dont_write_bytecode = True
    sys.addaudithook(_report_change)
    from broker.cli import main

    main()
