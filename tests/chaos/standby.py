"""A streaming replica of an embedded PostgreSQL, created as an operator does it."""

import os
import shutil
import subprocess
from pathlib import Path

from devstack.postgres import BIN_DIR, EmbeddedPostgres, PostgresError, system_user
from tests.support.postgres import UNSAFE_BUT_FAST
from tests.support.processes import wait_until


def streaming_replica(
    primary: EmbeddedPostgres, folder: Path, *, port: int = 0, through: int | None = None
) -> EmbeddedPostgres:
    """Yield a started standby that follows `primary`; it has the same password.

    It listens on `port`, or on a free one, and streams over the relay at port `through`, if given.
    """
    user = system_user()
    folder.mkdir(parents=True, exist_ok=True)
    cluster = folder / "cluster"
    cluster.mkdir(mode=0o700)
    os.chown(cluster, user.uid, user.gid)
    copied = subprocess.run(
        (
            *user.prefix, str(BIN_DIR / "pg_basebackup"), f"--pgdata={cluster}",
            "--host=127.0.0.1", f"--port={through or primary.port}", "--username=broker",
            "--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast", "--no-sync",
        ),
        env={**os.environ, "PGPASSWORD": primary.password},
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    if copied.returncode != 0:
        raise PostgresError(f"pg_basebackup failed:\n{copied.stderr.strip()}")
    shutil.copy2(primary.folder / "password", folder / "password")
    standby = EmbeddedPostgres(folder, port, options=UNSAFE_BUT_FAST)
    standby.start()
    return standby


def wait_until_caught_up(primary: EmbeddedPostgres, standby: EmbeddedPostgres) -> None:
    """Return once the standby has everything that the primary has now."""
    position = primary.execute("SELECT pg_current_wal_lsn()")
    question = f"SELECT pg_last_wal_replay_lsn() >= '{position}'"
    wait_until("the standby has caught up", lambda: standby.execute(question) == "t", within=15)


def promote(standby: EmbeddedPostgres) -> None:
    """Make the standby a primary. The old primary must be stopped, and must not return."""
    assert standby.execute("SELECT pg_promote()") == "t"


def cut_off(standby: EmbeddedPostgres) -> None:
    """Stop replication: the standby receives nothing that the primary commits from now on."""
    standby.execute("ALTER SYSTEM SET primary_conninfo = ''")
    standby.execute("SELECT pg_reload_conf()")
    receiving = "SELECT count(*) FROM pg_stat_wal_receiver"
    wait_until("it no longer receives", lambda: standby.execute(receiving) == "0", within=15)


def either(primary: EmbeddedPostgres, standby: EmbeddedPostgres, database: str) -> str:
    """Return a URL of both, for the one that accepts writes."""
    hosts = f"127.0.0.1:{primary.port},127.0.0.1:{standby.port}"
    url = primary.url(database).replace(f"127.0.0.1:{primary.port}", hosts)
    return f"{url}?target_session_attrs=read-write"
