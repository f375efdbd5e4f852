"""The secrets and files that `make run` makes once and finds again: one file each, for us only."""

import os
from collections.abc import Callable
from pathlib import Path


class Keepsakes:
    """A folder of small files that no other user of the machine can read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)

    def path(self, name: str) -> Path:
        return self.folder / name

    def keep(self, name: str, make: Callable[[], str]) -> Path:
        """The file of that name, made with what `make` returns if it isn't there yet."""
        path = self.path(name)
        return path if path.exists() else self.write(name, make())

    def write(self, name: str, text: str) -> Path:
        """Put `text` in the file; an interrupted write leaves the old one as it was."""
        path, unfinished = self.path(name), self.path(f"{name}.unfinished")
        unfinished.unlink(missing_ok=True)
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        unfinished.replace(path)
        return path
