"""Builds the image as `make image` does, from a checkout that contains secrets."""

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from secrets import token_hex

from tests.containers.engine import DOCKER_PATH, Engine
from tests.containers.parts import BASES
from tests.support.processes import CHECKOUT

_TIMEOUT_SECONDS = 600.0


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def mirror(folder: Path) -> Iterator[str]:
    """Serve a folder of wheels as a package mirror; yield its host and port."""
    handler = partial(_Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@dataclass(frozen=True)
class Source:
    """A copy of the checkout to build from, with secrets in places where mistakes put them."""

    folder: Path
    planted: Sequence[str]

    @classmethod
    def copy(cls, folder: Path) -> "Source":
        names = subprocess.run(
            ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"),
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split("\0")
        for name in filter(None, names):
            if (CHECKOUT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(CHECKOUT / name, folder / name)
        places = (".env", "credentials.json", "broker/.env", "broker/cli/key.pem", ".git/config")
        planted = [f"planted-{token_hex(16)}" for _ in places]
        for place, secret in zip(places, planted, strict=True):
            (folder / place).parent.mkdir(exist_ok=True)
            (folder / place).write_text(secret)
        return cls(folder, planted)


@dataclass(frozen=True)
class Builder:
    """Builds the same source repeatedly."""

    engine: Engine
    source: Source
    mirror_password: str
    """A password in the mirror's address, as in those of company mirrors."""

    def build(self, tag: str, wheels: Path, *arguments: str) -> None:
        """Build the image. Raises `DockerError`."""
        with self._offline(wheels) as offline:
            self.engine.docker(
                *("build", "--tag", tag, *offline, *arguments, str(self.source.folder)),
                timeout=_TIMEOUT_SECONDS,
            )

    def run_make_image(self, tag: str, wheels: Path, venv: Path) -> None:
        """Run `make image`, with the tools in a venv. Raises `subprocess.CalledProcessError`."""
        with self._offline(wheels) as offline:
            subprocess.run(
                [
                    *("make", "--no-print-directory", "image", f"VENV={venv}", f"IMAGE={tag}"),
                    f"IMAGE_ARGS={' '.join(offline)}",
                ],
                cwd=self.source.folder,
                env={**os.environ, **self.engine.environment, "PATH": DOCKER_PATH},
                check=True,
                timeout=_TIMEOUT_SECONDS,
            )

    @contextmanager
    def _offline(self, wheels: Path) -> Iterator[tuple[str, ...]]:
        """Return the options of `docker build` for a machine that reaches no registry."""
        with mirror(wheels) as address:
            pip = self.source.folder.parent / "pip.conf"
            pip.write_text(
                "[global]\nno-index = true\n"
                f"find-links = http://builder:{self.mirror_password}@{address}/\n"
                "trusted-host = 127.0.0.1\n"
            )
            yield (
                *("--network", "host", "--secret", f"id=pip,src={pip}"),
                *("--build-arg", "BASE=base", "--build-arg", "BUILD_BASE=build-base"),
            )


def load_bases(engine: Engine, parts: Path) -> None:
    """Import the fetched root file systems as images."""
    for name in BASES:
        engine.docker("import", str(parts / f"{name}.tar"), name)
