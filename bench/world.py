"""A broker with connected users: PostgreSQL, the Google stand-in, `broker serve`, consents."""

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import yaml

from bench.cores import Cores, starting_on
from bench.servers import BenchError, ServerProcess, free_port
from broker.callers.keys import hash_key, new_key
from broker.devstack.environments import inherited
from broker.devstack.google_standin import Client, GoogleStandin
from broker.devstack.postgres import EmbeddedPostgres

_CLIENT_ID = "bench.apps.googleusercontent.com"
_ACCOUNT = "ada@example.com"
_CALENDAR = "https://www.googleapis.com/auth/calendar.readonly"


@dataclass(frozen=True, slots=True)
class World:
    """The broker's process, and the requests that it can answer: one for each user."""

    broker: ServerProcess
    requests: tuple[bytes, ...]


@contextmanager
def broker_with_users(folder: Path, cores: Cores | None, *, users: int) -> Iterator[World]:
    """Everything runs until the end of the `with`; only the broker gets the server's core."""
    key, client_secret = new_key(), secrets.token_urlsafe(24)
    public, internal, ops = free_port(), free_port(), free_port()
    redirect_uri = f"http://127.0.0.1:{public}/auth/google/callback"
    standin = GoogleStandin([Client(_CLIENT_ID, client_secret, [redirect_uri])])
    with EmbeddedPostgres(folder / "postgres") as postgres, _serving(standin):
        environment = {
            **inherited(os.environ),
            "BROKER_PUBLIC_LISTEN": f"127.0.0.1:{public}",
            "BROKER_INTERNAL_LISTEN": f"127.0.0.1:{internal}",
            "BROKER_OPS_LISTEN": f"127.0.0.1:{ops}",
            "BROKER_CLIENTS_FILE": str(_clients_file(folder, key)),
            "DATABASE_URL": postgres.create_database("bench"),
            "SECRET_KEY": secrets.token_urlsafe(48),
            "GOOGLE_CLIENT_ID": _CLIENT_ID,
            "GOOGLE_CLIENT_SECRET": client_secret,
            "GOOGLE_REDIRECT_URI": redirect_uri,
            "GOOGLE_SCOPES": _CALENDAR,
            "GOOGLE_DISCOVERY_URL": standin.discovery_url,
        }
        _migrate(environment)
        with starting_on(cores.server if cores else None):
            broker = ServerProcess(
                "broker serve",
                ("-m", "broker.cli", "serve"),
                environment=environment,
                port=internal,
                log_path=folder / "broker.log",
            )
        with broker:
            names = [f"user-{number:04}" for number in range(users)]
            for name in names:
                _connect(name, internal, key, standin)
            yield World(broker, tuple(_request(name, internal, key) for name in names))


@contextmanager
def _serving(standin: GoogleStandin) -> Iterator[None]:
    standin.start()
    try:
        yield
    finally:
        standin.stop()


def _clients_file(folder: Path, key: str) -> Path:
    stanza = {
        "keys": [hash_key(key)],
        "can": ["tokens:read", "links:create"],
        "scopes": [_CALENDAR],
        "users": ["user-*"],
    }
    path = folder / "clients.yaml"
    path.write_text(yaml.safe_dump({"clients": {"bench": stanza}}), encoding="utf-8")
    return path


def _migrate(environment: dict[str, str]) -> None:
    command = (sys.executable, "-m", "broker.cli", "migrate")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BenchError(f"broker migrate failed:\n{done.stderr.strip()}")


def _connect(user: str, internal: int, key: str, standin: GoogleStandin) -> None:
    """The user's consent, page by page, with the stand-in's account page answered for them."""
    with httpx2.Client(trust_env=False, timeout=20) as http:
        link = http.post(
            f"http://127.0.0.1:{internal}/v1/users/{user}/connect-links",
            headers={"Authorization": f"Bearer {key}"},
            json={"scopes": [_CALENDAR]},
        )
        _expect(link, 201)
        to_google = http.get(link.json()["url"])
        _expect(to_google, 303)
        callback = standin.consent(to_google.headers["location"], _ACCOUNT)
        done = http.get(callback)
        while done.is_redirect:
            done = http.get(str(done.url.join(done.headers["location"])))
        _expect(done, 200)


def _expect(answer: httpx2.Response, status: int) -> None:
    if answer.status_code != status:
        path = urlsplit(str(answer.url)).path
        raise BenchError(f"{answer.request.method} {path}: {answer.status_code}, not {status}")


def _request(user: str, port: int, key: str) -> bytes:
    """What a caller's HTTP client would send."""
    return (
        f"GET /v1/users/{user}/token HTTP/1.1\r\n"
        f"Host: 127.0.0.1:{port}\r\n"
        "Accept: */*\r\n"
        "User-Agent: bench\r\n"
        f"Authorization: Bearer {key}\r\n\r\n"
    ).encode()
