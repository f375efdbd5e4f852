"""The folder in which `make run` keeps secrets and settings: one file each, for the owner only."""

import os
from collections.abc import Callable
from pathlib import Path


class DataFolder:
    """A folder of small files that no other user of the machine can read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o700)

    def file(self, name: str) -> Path:
        return self.path / name

    def keep(self, name: str, make: Callable[[], str]) -> Path:
        """Return the file; write what `make` returns if the file does not exist yet."""
        path = self.file(name)
        return path if path.exists() else self.write(name, make())

    def write(self, name: str, text: str) -> Path:
        """Replace the file's text; an interrupted write leaves the old text."""
        path, unfinished = self.file(name), self.file(f"{name}.unfinished")
        unfinished.unlink(missing_ok=True)
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        unfinished.replace(path)
        return path
