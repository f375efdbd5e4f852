"""A secret as it is configured, and read from there."""

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from broker.secret import Secret

_LARGEST = 64 * 1024
"""Bytes."""


class UnreadableSecretError(Exception):
    """A secret's file is missing, unreadable or empty; the message says which and why."""


@dataclass(frozen=True, slots=True)
class SecretSetting:
    """A secret as configured: a value, or the file that holds it.

    The file is read anew at each `read()`, so that a secret rotated on disk is noticed.
    """

    name: str
    value: Secret | None = None
    path: Path | None = None

    def read(self) -> Secret:
        """The secret now. Raises `UnreadableSecretError`."""
        if self.value is not None:
            return self.value
        assert self.path is not None  # noqa: S101  (one of the two is always set)
        return read_secret_file(self.path, f"{self.name}_FILE: can't read {_shown(self.path)}")


def read_secret_file(path: Path, complaint: str) -> Secret:
    """What a file holds, without white space around it.

    Raises `UnreadableSecretError`, whose message is the complaint and the reason. Nothing is
    chained to it: the error about a file that is not text holds the bytes.
    """
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                reason = "it is not a regular file"
            elif len(content := file.read(_LARGEST + 1)) > _LARGEST:
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


def _without_waiting(path: str, flags: int) -> int:
    """Open a pipe that nobody writes to as well, to be refused by its kind."""
    return os.open(path, flags | os.O_NONBLOCK)


def _shown(path: Path) -> str:
    """A path for people; not, if it might be the secret itself, put where its file belongs."""
    folder = path.parent
    is_path = path.is_absolute() and folder != folder.parent and os.path.isdir(folder)  # noqa: PTH112  (takes anything)
    return str(path) if is_path else "the file"
