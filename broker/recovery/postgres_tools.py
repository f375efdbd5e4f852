"""PostgreSQL's own programs, from the PATH."""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path


class ToolsError(Exception):
    """PostgreSQL's programs can't be used here; the message says why."""


@dataclass(frozen=True, slots=True)
class Tools:
    """Where they are, and of which major version."""

    folder: Path
    version: str

    def path(self, program: str) -> str:
        return str(self.folder / program)

    def run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run one to its end, in plain English."""
        return subprocess.run(  # noqa: S603  (PostgreSQL's own, with arguments of ours)
            [self.path(program), *arguments],
            env={**os.environ, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )


def find_tools() -> Tools:
    """Raises `ToolsError`."""
    if os.geteuid() == 0:
        raise ToolsError(
            "PostgreSQL refuses to run as root: run this as the user that owns the backups"
        )
    server = shutil.which("postgres")
    if server is None:
        raise ToolsError(
            "there is no `postgres` on the PATH: add PostgreSQL's bin folder (Debian: "
            "/usr/lib/postgresql/17/bin), or restore elsewhere and run this with --restored"
        )
    folder = Path(server).resolve().parent
    done = Tools(folder, "").run("postgres", "--version")
    version = re.search(r"([0-9]+)", done.stdout)
    if done.returncode != 0 or version is None:
        raise ToolsError(f"{server} does not run: {done.stderr.strip() or done.stdout.strip()}")
    return Tools(folder, version[1])
