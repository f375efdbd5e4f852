"""A secret as it is configured, and read from there."""

import os
from dataclasses import dataclass
from pathlib import Path

from broker.secret import Secret

_LARGEST = 64 * 1024
"""Bytes."""


class UnreadableSecretError(Exception):
    """A secret's file is missing, unreadable or empty; the message names the setting and file."""


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
        try:
            with self.path.open("rb") as file:
                content = file.read(_LARGEST + 1)
            text = content.decode().strip()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "it is not text"
            raise UnreadableSecretError(
                f"{self.name}_FILE: can't read {_shown(self.path)}: {reason}"
            ) from error
        if len(content) > _LARGEST:
            raise UnreadableSecretError(
                f"{self.name}_FILE: {_shown(self.path)} is much larger than a secret"
            )
        if not text:
            raise UnreadableSecretError(f"{self.name}_FILE: {_shown(self.path)} is empty")
        return Secret(text)


def _shown(path: Path) -> str:
    """A path for people; not, if it might be the secret itself, put where its file belongs."""
    folder = path.parent
    is_path = path.is_absolute() and folder != folder.parent and os.path.isdir(folder)  # noqa: PTH112  (takes anything)
    return str(path) if is_path else "the file"
