"""Debian's PgBouncer in transaction mode, in front of an embedded PostgreSQL."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from devstack.postgres import SUPERUSER, EmbeddedPostgres, system_user
from tests.support.processes import free_port, started

BINARY = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


@contextmanager
def transaction_pooler(postgres: EmbeddedPostgres, folder: Path, *, size: int) -> Iterator[int]:
    """Yield the port of a pooler that shares `size` connections in transaction mode."""
    assert BINARY is not None
    port = free_port()
    users = folder / "users.txt"
    users.write_text(f'"{SUPERUSER}" "{postgres.password}"\n', encoding="ascii")
    config = folder / "pgbouncer.ini"
    config.write_text(
        "[databases]\n"
        f"* = host=127.0.0.1 port={postgres.port}\n"
        "[pgbouncer]\n"
        f"listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
        f"auth_type = scram-sha-256\nauth_file = {users}\n"
        f"pool_mode = transaction\ndefault_pool_size = {size}\nmax_client_conn = 200\n"
        "server_login_retry = 1\n",
        encoding="ascii",
    )
    command = (*system_user().prefix, BINARY, str(config))
    with started(command, log=folder / "pgbouncer.log") as process:
        process.wait_until_listening(port)
        yield port
