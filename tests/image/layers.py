"""An image as `docker save` writes it: the files of its layers, and its configuration."""

import json
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.containers.engine import Engine


@dataclass(frozen=True)
class SavedImage:
    """One image in a folder."""

    folder: Path

    @classmethod
    def save(cls, engine: Engine, image: str, folder: Path) -> "SavedImage":
        archive = folder / "image.tar"
        engine.docker("save", "--output", str(archive), image)
        # Without a filter Python warns; with one it fails before 3.11.4.
        subprocess.run(("tar", "-xf", archive, "-C", folder), check=True)
        archive.unlink()
        return cls(folder)

    @property
    def configuration(self) -> str:
        """Return its JSON: the container's configuration, and the history of the build."""
        name: str = self._manifest["Config"]
        return (self.folder / name).read_text()

    def files(self, *, first_layer: int) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
        """Return each file with its content, from a layer on."""
        for layer in self._manifest["Layers"][first_layer:]:
            with tarfile.open(self.folder / layer) as tar:
                for member in tar:
                    content = tar.extractfile(member) if member.isfile() else None
                    yield member, content.read() if content else b""

    @property
    def _manifest(self) -> Any:
        (manifest,) = json.loads((self.folder / "manifest.json").read_text())
        return manifest
