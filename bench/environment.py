"""The environment of the measured brokers: PostgreSQL, the Google stand-in, users."""

import asyncio
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import yaml

from bench import sample_grants as filling
from bench.cores import Cores, starting_on
from bench.sample_grants import CALENDAR, CLIENT_ID
from bench.servers import BenchError, ServerProcess
from broker.callers.keys import hash_key, new_key
from devstack.google_standin import Client, GoogleStandin
from devstack.part_settings import inherited
from devstack.postgres import EmbeddedPostgres
from devstack.processes import free_port, is_free


@dataclass(frozen=True, slots=True)
class BenchEnvironment:
    """What the `broker serve` processes of a run share."""

    folder: Path
    cores: Cores | None
    postgres: EmbeddedPostgres
    standin: GoogleStandin
    key: str
    client_secret: str
    redirect_port: int
    secret_key: str

    @contextmanager
    def broker(self, database_url: str, *, port: int = 0) -> Iterator[ServerProcess]:
        """Start one replica on the server's core. The first gets the redirect URI's public port.

        `port` is the internal listener's.
        """
        internal, ops = port or free_port(), free_port()
        public = self.redirect_port if is_free(self.redirect_port) else free_port()
        environment = {
            **self.settings(database_url),
            "BROKER_PUBLIC_LISTEN": f"127.0.0.1:{public}",
            "BROKER_INTERNAL_LISTEN": f"127.0.0.1:{internal}",
            "BROKER_OPS_LISTEN": f"127.0.0.1:{ops}",
        }
        with self.starting():
            process = ServerProcess(
                "broker serve",
                ("-m", "broker.cli", "serve"),
                environment=environment,
                port=internal,
                log_path=self.folder / f"broker-{internal}.log",
            )
        process.ops_port = ops
        with process:
            yield process

    def starting(self) -> AbstractContextManager[None]:
        """Start processes on the core of the measured server."""
        return starting_on(self.cores.server if self.cores else None)

    @contextmanager
    def replicas(self, database_url: str, count: int) -> Iterator[Sequence[ServerProcess]]:
        """Start several replicas on one database."""
        with ExitStack() as stack:
            yield [stack.enter_context(self.broker(database_url)) for _ in range(count)]

    def settings(self, database_url: str) -> dict[str, str]:
        """Return the environment variables of `broker serve`, without its addresses."""
        return {
            **inherited(os.environ),
            "BROKER_CALLERS_FILE": str(_callers_file(self.folder, self.key)),
            "DATABASE_URL": database_url,
            "SECRET_KEY": self.secret_key,
            "GOOGLE_CLIENT_ID": CLIENT_ID,
            "GOOGLE_CLIENT_SECRET": self.client_secret,
            "GOOGLE_REDIRECT_URI": f"http://127.0.0.1:{self.redirect_port}/auth/google/callback",
            "GOOGLE_SCOPES": CALENDAR,
            "GOOGLE_DISCOVERY_URL": self.standin.discovery_url,
        }

    def new_database(self) -> str:
        """Create an empty database with the current schema and return its URL."""
        url = self.postgres.create_database(f"bench_{secrets.token_hex(4)}")
        _migrate(self.settings(url))
        return url

    def fill(self, database_url: str, count: int) -> list[str]:
        """Insert users with a token that lives for an hour. The Google stand-in does not know
        them, so it refreshes none of these tokens.
        """
        user_ids = filling.new_user_ids(count)
        asyncio.run(filling.fill(database_url, filling.sealer_of(self.secret_key), user_ids))
        return user_ids

    def connect(self, broker: ServerProcess, user_ids: Sequence[str]) -> None:
        """Let the users consent, page by page, each with another account."""
        with httpx2.Client(trust_env=False, timeout=20) as http:
            for user_id in user_ids:
                account = self.standin.add_account(f"{user_id}@example.com").email
                _connect(http, user_id, account, broker.port, self.key, self.standin)

    def request(self, broker: ServerProcess, user_id: str, query: str = "") -> bytes:
        """Return the bytes that a caller's HTTP client sends for a token."""
        return http_request("GET", f"/v1/users/{user_id}/token{query}", broker.port, self.key)


@contextmanager
def bench_environment(
    folder: Path, cores: Cores | None, *, postgres_options: Mapping[str, str] | None = None
) -> Iterator[BenchEnvironment]:
    """Run PostgreSQL and the Google stand-in."""
    client_secret, redirect_port = secrets.token_urlsafe(24), free_port()
    redirect_uri = f"http://127.0.0.1:{redirect_port}/auth/google/callback"
    standin = GoogleStandin([Client(CLIENT_ID, client_secret, [redirect_uri])])
    with (
        EmbeddedPostgres(folder / "postgres", options=postgres_options) as postgres,
        _serving(standin),
    ):
        yield BenchEnvironment(
            folder=folder,
            cores=cores,
            postgres=postgres,
            standin=standin,
            key=new_key(),
            client_secret=client_secret,
            redirect_port=redirect_port,
            secret_key=secrets.token_urlsafe(48),
        )


@dataclass(frozen=True, slots=True)
class World:
    """One broker process, and a token request for each user."""

    broker: ServerProcess
    requests: tuple[bytes, ...]


@contextmanager
def broker_with_users(folder: Path, cores: Cores | None, *, users: int) -> Iterator[World]:
    """Run everything; only the broker gets the server's core."""
    with bench_environment(folder, cores) as environment:
        url = environment.new_database()
        with environment.broker(url) as broker:
            names = [f"user-{number:04}" for number in range(users)]
            environment.connect(broker, names)
            yield World(broker, tuple(environment.request(broker, name) for name in names))


@contextmanager
def _serving(standin: GoogleStandin) -> Iterator[None]:
    standin.start()
    try:
        yield
    finally:
        standin.stop()


def _callers_file(folder: Path, key: str) -> Path:
    stanza = {
        "keys": [hash_key(key)],
        "can": ["tokens:read", "links:create", "grants:read", "grants:revoke"],
        "scopes": [CALENDAR],
        "users": ["user-*"],
    }
    path = folder / "callers.yaml"
    if not path.exists():
        path.write_text(yaml.safe_dump({"callers": {"bench": stanza}}), encoding="utf-8")
    return path


def _migrate(environment: dict[str, str]) -> None:
    command = (sys.executable, "-m", "broker.cli", "migrate")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BenchError(f"broker migrate failed:\n{done.stderr.strip()}")


def _connect(
    http: httpx2.Client, user: str, account: str, internal: int, key: str, standin: GoogleStandin
) -> None:
    """Let a user consent, page by page, including the stand-in's account page."""
    http.cookies.clear()
    link = http.post(
        f"http://127.0.0.1:{internal}/v1/users/{user}/connect-links",
        headers={"Authorization": f"Bearer {key}"},
        json={"scopes": [CALENDAR]},
    )
    _expect(link, 201)
    to_google = http.get(link.json()["url"])
    _expect(to_google, 303)
    done = http.get(standin.consent(to_google.headers["location"], account))
    while done.is_redirect:
        done = http.get(str(done.url.join(done.headers["location"])))
    _expect(done, 200)


def _expect(answer: httpx2.Response, status: int) -> None:
    if answer.status_code != status:
        path = urlsplit(str(answer.url)).path
        raise BenchError(f"{answer.request.method} {path}: {answer.status_code}, not {status}")


def http_request(method: str, target: str, port: int, key: str, body: bytes = b"") -> bytes:
    """Return a complete request for a keep-alive connection."""
    head = (
        f"{method} {target} HTTP/1.1\r\n"
        f"Host: 127.0.0.1:{port}\r\n"
        "Accept: */*\r\n"
        "User-Agent: bench\r\n"
        f"Authorization: Bearer {key}\r\n"
    )
    if body:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return f"{head}\r\n".encode() + body
