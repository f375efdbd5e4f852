"""A temporary PostgreSQL server for one drill, in its own folder.

It listens on a socket that only this user may open. It archives nothing, and reads no
configuration of the backup.
"""

import re
import shlex
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit

from broker.recovery.backups import (
    BaseBackup,
    Dump,
    PostgresTools,
    RestoreError,
    check_archive,
    error_line,
    unpack,
)
from broker.secret import Secret

_POLL_SECONDS = 0.05
_STOP_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Login:
    """The role and the database in a URL."""

    role: str
    database: str

    @classmethod
    def of(cls, url: Secret) -> "Login":
        """Read them from a URL; the host is ignored. Raises `RestoreError` if one is missing."""
        parts = urlsplit(url.reveal())
        options = parse_qs(parts.query)
        role = parts.username or options.get("user", [""])[0]
        database = parts.path.lstrip("/") or options.get("dbname", options.get("database", [""]))[0]
        if not role or not database:
            raise RestoreError(
                "DATABASE_URL must name the role and the database that the backup has "
                "(postgresql://role@host/database); nothing connects to its host"
            )
        return cls(unquote(role), unquote(database))


@contextmanager
def restored(
    backup: Dump | BaseBackup, login: Login, tools: PostgresTools, *, timeout_seconds: float
) -> Iterator[Secret]:
    """Yield the URL of a server that has this backup, and stop it. Raises `RestoreError`."""
    with tempfile.TemporaryDirectory(prefix="drill-") as folder:
        server = _Server(Path(folder), tools, login, timeout_seconds)
        try:
            if isinstance(backup, Dump):
                server.load(backup)
            else:
                server.recover(backup)
            yield server.url(login.database)
        finally:
            server.stop()


class _Server:
    def __init__(
        self, folder: Path, tools: PostgresTools, login: Login, timeout_seconds: float
    ) -> None:
        self._folder = folder
        self._data = folder / "data"
        self._tools = tools
        self._login = login
        self._timeout_seconds = timeout_seconds
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, database: str) -> Secret:
        """Return the URL of its socket."""
        role, name = quote(self._login.role, safe=""), quote(database, safe="")
        return Secret(f"postgresql://{role}@/{name}?host={quote(str(self._folder))}&port=5432")

    def load(self, dump: Dump) -> None:
        """Create a cluster, and fill it with `pg_restore`."""
        self._must(
            "initdb", f"--pgdata={self._data}", f"--username={self._login.role}", "--auth=trust",
            "--encoding=UTF8", "--locale=C", "--no-instructions", "--no-sync",
        )  # fmt: skip
        self._start({})
        socket = (f"--host={self._folder}", "--port=5432", f"--username={self._login.role}")
        if self._login.database != "postgres":
            self._must("createdb", *socket, "--maintenance-db=postgres", self._login.database)
        done = self._tools.run(
            "pg_restore", *socket, "--no-owner", "--no-privileges", "--exit-on-error",
            f"--dbname={self._login.database}", str(dump.path),
        )  # fmt: skip
        if done.returncode != 0:
            raise RestoreError(f"{dump.path} can't be restored: {error_line(done)}")

    def recover(self, backup: BaseBackup) -> None:
        """Start PostgreSQL on the base backup, which recovers to the end of the WAL."""
        unpack(backup, self._data, self._tools)
        check_archive(backup, self._data)
        for name in ("standby.signal", "postmaster.pid"):
            (self._data / name).unlink(missing_ok=True)
        (self._data / "postgresql.auto.conf").write_text("", encoding="ascii")
        (self._data / "recovery.signal").touch()
        self._start({"restore_command": _restore_command(backup.wal), "hot_standby": "off"})

    def stop(self) -> None:
        """Stop the server and wait; no-op if it never ran."""
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
            process.send_signal(number)
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                continue
            return

    def _must(self, program: str, *arguments: str) -> None:
        done = self._tools.run(program, *arguments)
        if done.returncode != 0:
            raise RestoreError(f"{program} failed: {error_line(done)}")

    def _start(self, more: Mapping[str, str]) -> None:
        settings = {
            "listen_addresses": "",
            "port": "5432",
            "unix_socket_directories": str(self._folder),
            "unix_socket_permissions": "0700",
            "hba_file": str(self._folder / "hba.conf"),
            "config_file": str(self._folder / "postgresql.conf"),
            "archive_mode": "off",
            "max_wal_senders": "0",
            **more,
        }
        (self._folder / "hba.conf").write_text("local all all trust\n", encoding="ascii")
        (self._folder / "postgresql.conf").write_text("", encoding="ascii")
        given = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with (self._folder / "server.log").open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603  (PostgreSQL's)
                [self._tools.path("postgres"), "-D", str(self._data), *given],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._wait_until_ready(self._process)

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + self._timeout_seconds
        while not self._says_ready():
            if process.poll() is not None:
                raise RestoreError(f"PostgreSQL can't recover: {self._fatal_error()}")
            if time.monotonic() > deadline:
                raise RestoreError(f"not recovered within {self._timeout_seconds:.0f} s")
            time.sleep(_POLL_SECONDS)

    def _says_ready(self) -> bool:
        try:
            lines = (self._data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return False
        return len(lines) >= 8 and lines[7].strip() == "ready"

    def _fatal_error(self) -> str:
        text = (self._folder / "server.log").read_text(encoding="utf-8", errors="replace")
        fatal = re.findall(r"(?:FATAL|PANIC): +(.*)", text)
        return str(fatal[-1]) if fatal else "it printed no error"


def _restore_command(archive: Path | None) -> str:
    """Return a command that also finds the segment that `pg_receivewal` is still writing."""
    if archive is None:
        return "false"
    folder = shlex.quote(str(archive.resolve())).replace("%", "%%")
    return f'cp {folder}/%f "%p" 2>/dev/null || cp {folder}/%f.partial "%p" 2>/dev/null'
