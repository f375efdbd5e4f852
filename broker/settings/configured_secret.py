"""A secret as it is configured: a value, or a file that is read at each use."""

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from broker.secret import Secret

_MAX_BYTES = 64 * 1024


class UnreadableSecretError(Exception):
    """A secret's file is missing, unreadable or empty; the message says which file and why."""


@dataclass(frozen=True, slots=True)
class ConfiguredSecret:
    """A secret's value, or the file that holds it.

    `read()` reads the file again each time, and so notices a secret that was rotated on disk.
    """

    name: str
    value: Secret | None = None
    path: Path | None = None

    def read(self) -> Secret:
        """Return the current secret. Raises `UnreadableSecretError`."""
        if self.value is not None:
            return self.value
        assert self.path is not None  # noqa: S101  (one of the two is always set)
        return read_secret_file(self.path, f"{self.name}_FILE: can't read {_shown(self.path)}")


def read_secret_file(path: Path, complaint: str) -> Secret:
    """Return the file's text without surrounding white space.

    Raises `UnreadableSecretError`; its message is the complaint and the reason. The cause is not
    chained: a `UnicodeDecodeError` holds the file's bytes.
    """
    try:
        with open(path, "rb", opener=_open_without_blocking) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                reason = "it is not a regular file"
            elif len(content := file.read(_MAX_BYTES + 1)) > _MAX_BYTES:
                reason = "it is much larger than a secret"
            elif text := content.decode().strip():
                return Secret(text)
            else:
                reason = "it is empty"
    except OSError as error:
        reason = error.strerror or type(error).__name__
    except ValueError:
        reason = "it is not text"
    raise UnreadableSecretError(f"{complaint}: {reason}")


def _open_without_blocking(path: str, flags: int) -> int:
    """Open a named pipe without waiting for a writer, so that its type can be rejected."""
    return os.open(path, flags | os.O_NONBLOCK)


def _shown(path: Path) -> str:
    """The path for a message; not if it may be the secret itself, set instead of its file."""
    folder = path.parent
    is_path = path.is_absolute() and folder != folder.parent and os.path.isdir(folder)  # noqa: PTH112  (takes anything)
    return str(path) if is_path else "the file"
