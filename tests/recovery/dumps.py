"""Real `pg_dump` and `pg_restore`, run as by an operator."""

import os
import subprocess
from pathlib import Path
from uuid import uuid4

from devstack.postgres import BIN_DIR, EmbeddedPostgres


def dump(url: str, file: Path) -> Path:
    """Back up one database in pg_dump's custom format."""
    _run("pg_dump", "--format=custom", f"--file={file}", url)
    return file


def restore(file: Path, server: EmbeddedPostgres) -> str:
    """Restore a dump into a new database on this server, and return its name."""
    name = f"restored_{uuid4().hex}"
    url = server.create_database(name)
    _run("pg_restore", "--no-owner", "--exit-on-error", f"--dbname={url}", str(file))
    return name


def _run(program: str, *arguments: str) -> None:
    done = subprocess.run(
        [str(BIN_DIR / program), *arguments], env=os.environ, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
