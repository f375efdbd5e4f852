"""Starts the parts of `make run` in order, and stops them in reverse order.

Every secret reaches the broker as in production: from OpenBao, or in a file, never as an argument.
"""

import os
import secrets
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, suppress

import yaml

from broker.callers.keys import hash_key, new_key
from broker.secret import Secret
from devstack.console import Console, Step
from devstack.data_folder import DataFolder
from devstack.openbao import OpenBao, OpenBaoError
from devstack.part_settings import broker_settings, demo_settings, inherited
from devstack.plan import Plan
from devstack.postgres import EmbeddedPostgres, PostgresError
from devstack.processes import ChildProcess, DevstackError, Stopped

DEMO_CALLER = "demo-page"
STANDIN_CLIENT_ID = "demo.apps.googleusercontent.com"

_WATCH_SECONDS = 0.3
_BROKER = (sys.executable, "-m", "broker.cli")


class EmbeddedStack:
    """All parts on this machine, from `start` to `stop`."""

    def __init__(
        self, plan: Plan, data: DataFolder, console: Console, stopping: threading.Event
    ) -> None:
        """A signal handler may set `stopping` at any time: `start` and `watch` then end."""
        self._plan = plan
        self._data = data
        self._console = console
        self._stopping = stopping
        self._logs = data.file("logs")
        self._postgres = EmbeddedPostgres(
            data.file("postgres"), log_path=self._logs / "postgres.log"
        )
        self._openbao = OpenBao(home=self._logs)
        self._watched: list[ChildProcess] = []
        self._parts = ExitStack()

    def start(self) -> None:
        """Return once every part answers. Raises `DevstackError`, or `Stopped`."""
        self._write_files()
        # These two depend on no other part, so they start first and are awaited later.
        standin = self._launch(self._standin()) if self._plan.google is None else None
        demo = self._launch(self._demo())
        self._start_postgres()
        migration = self._launch_quietly(self._broker("broker migrate", "migrate"))
        self._start_openbao()
        if standin is not None:
            self._await(standin, self._plan.discovery_url, at=self._plan.standin_url)
        with self._step("Migrating the database"):
            migration.finish(self._stopping)
        broker = self._launch(self._broker("the broker", "serve", **self._broker_settings()))
        self._await(broker, f"{self._plan.ops_url}/readyz", at=self._plan.internal_url)
        self._await(demo, f"{self._plan.demo_url}/livez", at=self._plan.demo_url)

    def watch(self) -> None:
        """Return when `stopping` is set. Raises `DevstackError` if a part ends before."""
        while not self._stopping.wait(_WATCH_SECONDS):
            for child in self._watched:
                child.raise_if_ended()
            if not self._postgres.is_running():
                raise DevstackError(f"PostgreSQL ended unexpectedly; see {self._postgres.log_path}")
            if self._openbao.pid is None:
                raise DevstackError(f"OpenBao ended unexpectedly; see {self._openbao.log_path}")

    def stop(self) -> None:
        """Stop the parts that were started, the last one first."""
        self._watched.clear()
        self._parts.close()

    def _write_files(self) -> None:
        self._data.keep("secret-key", lambda: secrets.token_urlsafe(48))
        self._data.keep("google-client-secret", lambda: f"GOCSPX-{secrets.token_urlsafe(21)}")
        key = self._data.keep("demo-key", new_key).read_text(encoding="utf-8")
        demo = {
            "keys": [hash_key(key)],
            "can": ["tokens:read", "links:create", "grants:read", "grants:revoke"],
            "scopes": self._plan.scopes.split(),
            "users": ["*"],
            "return_to": [f"{self._plan.demo_url}/connected"],
        }
        document = {"callers": {DEMO_CALLER: demo}}
        self._data.write("callers.yaml", yaml.safe_dump(document, sort_keys=False))

    def _start_postgres(self) -> None:
        with self._step("PostgreSQL") as step:
            self._stop_at_the_end("PostgreSQL", self._postgres.stop)
            try:
                self._postgres.start()
                if not self._postgres.has_database(self._database):
                    self._postgres.create_database(self._database)
            except PostgresError as error:
                raise DevstackError(str(error)) from error
            self._data.write("database-url", self._postgres.url(self._database))
            step.detail = f"127.0.0.1:{self._postgres.port}"

    @property
    def _database(self) -> str:
        """The database's name. Grants of the stand-in and of the real Google must not share one:
        each would refuse the other's tokens, and every grant would look revoked.
        """
        return "broker_real_google" if self._plan.google else "broker"

    def _start_openbao(self) -> None:
        with self._step("OpenBao, with the Google client in it") as step:
            self._stop_at_the_end("OpenBao", self._openbao.stop)
            try:
                self._openbao.start()
                self._openbao.put_google_client(*self._google_client())
                role = self._openbao.create_approle()
            except OpenBaoError as error:
                raise DevstackError(str(error)) from error
            self._data.write("vault-role-id", role.role_id.reveal())
            self._data.write("vault-secret-id", role.secret_id.reveal())
            step.detail = self._openbao.address

    def _google_client(self) -> tuple[str, Secret]:
        if self._plan.google is not None:
            return self._plan.google.client_id, self._plan.google.client_secret
        secret = self._data.file("google-client-secret").read_text(encoding="utf-8")
        return STANDIN_CLIENT_ID, Secret(secret)

    def _broker(self, name: str, command: str, **settings: str) -> ChildProcess:
        settings["DATABASE_URL_FILE"] = str(self._data.file("database-url"))
        return self._child(name, (*_BROKER, command), settings, log=name.removeprefix("the "))

    def _broker_settings(self) -> dict[str, str]:
        return broker_settings(self._plan, self._data, vault_address=self._openbao.address)

    def _standin(self) -> ChildProcess:
        client_id, client_secret = self._google_client()
        redirects = [uri.strip() for uri in self._plan.redirect_uri.split(",")]
        command = (
            sys.executable, "-m", "devstack.google_standin",
            f"--port={self._plan.google_port}",
            f"--state-file={self._data.file('google-standin.json')}",
            f"--client-id={client_id}",
            *(f"--redirect-uri={uri}" for uri in redirects if uri),
        )  # fmt: skip
        settings = {"STANDIN_CLIENT_SECRET": client_secret.reveal()}
        return self._child("the Google stand-in", command, settings, log="google-standin")

    def _demo(self) -> ChildProcess:
        settings = demo_settings(self._plan, self._data.file("demo-key"))
        command = (sys.executable, "-m", "devstack.demo")
        return self._child("the demo page", command, settings, log="demo")

    def _child(
        self, name: str, command: tuple[str, ...], settings: dict[str, str], *, log: str
    ) -> ChildProcess:
        return ChildProcess(
            name,
            command,
            environment={**inherited(os.environ), **settings},
            log_path=self._logs / f"{log.replace(' ', '-')}.log",
        )

    def _launch(self, child: ChildProcess) -> ChildProcess:
        self._stop_at_the_end(child.name, lambda: _stop(child))
        child.start()
        return child

    def _launch_quietly(self, child: ChildProcess) -> ChildProcess:
        """Start a process that ends by itself before the others."""
        self._parts.callback(_stop, child)
        child.start()
        return child

    def _await(self, child: ChildProcess, url: str, *, at: str) -> None:
        with self._step(child.name[4:].capitalize()) as step:
            child.wait_until_answering(url, stopping=self._stopping)
            self._watched.append(child)
            step.detail = at

    def _step(self, name: str) -> AbstractContextManager[Step]:
        if self._stopping.is_set():
            raise Stopped
        return self._console.step(name)

    def _stop_at_the_end(self, name: str, stop: Callable[[], None]) -> None:
        """Registered before the start, so that a part whose start failed midway is stopped, too."""

        def stop_as_a_step() -> None:
            with self._console.step(f"Stopping {name}"):
                stop()

        self._parts.callback(stop_as_a_step)


def _stop(child: ChildProcess) -> None:
    with suppress(subprocess.TimeoutExpired):
        child.stop()
