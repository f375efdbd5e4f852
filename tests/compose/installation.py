"""An installation as docs/how-to/deploy-compose.md describes it, created with its commands."""

import os
import re
import secrets
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import yaml

from tests.acceptance.installation import Service
from tests.compose.google_over_tls import URL as GOOGLE_URL
from tests.compose.google_over_tls import TlsGoogle
from tests.compose.terminal import Answers, run_in_terminal
from tests.containers.engine import DOCKER_PATH, Container, Engine
from tests.docs.documents import ROOT, blocks, section, text_of
from tests.support.processes import clean_environment
from tests.support.scopes import CALENDAR, CALENDAR_READONLY

PAGE = "docs/how-to/deploy-compose.md"
CLIENT_ID = "528374-compose.apps.googleusercontent.com"
PUBLIC_URL = "https://localhost"
RUNBOOKS = "https://git.example.com/token-broker/blob/main/"

_DOCKER = """#!/bin/sh
if [ "$1" = compose ]; then shift; exec "{compose}" "$@"; fi
PATH="{path}" exec docker "$@"
"""
"""`docker compose`, for the Compose that is installed."""


def commands(heading: str) -> list[str]:
    """Return the code blocks of one section of the page."""
    return [re.sub(r"^   ", "", block, flags=re.MULTILINE) for block in _blocks(heading)]


def _blocks(heading: str) -> list[str]:
    return blocks(section(text_of(PAGE), heading), "sh")


@dataclass
class Installation:
    """The installation, and its operator's secrets."""

    engine: Engine
    folder: Path
    environment: Mapping[str, str]
    google: TlsGoogle
    client_secret: str
    operator_password: str
    unseal_keys: list[str] = field(default_factory=list)
    root_token: str = ""
    key: str = ""
    """The caller's key."""

    def run_in_terminal(self, block: str, answers: Answers = (), *, within: float = 180) -> str:
        """Return a terminal's output. Raises `AssertionError` if a command failed."""
        return run_in_terminal(block, self.folder, self.environment, answers, within=within)

    def compose(self, *arguments: str, timeout: float = 180) -> subprocess.CompletedProcess[str]:
        """Run `docker compose …` without a terminal, and ignore its exit status."""
        return subprocess.run(
            ("docker", "compose", *arguments),
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def run(self, *arguments: str, timeout: float = 180) -> str:
        """Return the output of `docker compose …`. Raises `AssertionError` if it fails."""
        done = self.compose(*arguments, timeout=timeout)
        assert done.returncode == 0, f"docker compose {arguments}: {done.stderr[-4000:]}"
        return done.stdout

    def container(self, service: str, number: int = 1) -> Container:
        """Return one container of a service, by the name that Compose gives it."""
        return Container(self.engine, f"token-broker-{service}-{number}")

    def address(self, service: str, network: str, number: int = 1) -> str:
        """Return its address in one of the networks; the host reaches all of them."""
        networks: dict[str, Any] = self.container(service, number).inspect()["NetworkSettings"][
            "Networks"
        ]
        return str(networks[network]["IPAddress"])

    def api(self, number: int = 1) -> Service:
        """Request one broker's internal API."""
        address = self.address("broker", "token-broker-callers", number)
        return Service(f"http://{address}:8001", self.key)

    def prometheus(self, path: str, **query: str) -> Any:
        """Return the answer of Prometheus's API."""
        return self._ask("prometheus", 9090, path, query)

    def _ask(self, service: str, port: int, path: str, query: Mapping[str, str]) -> Any:
        address = self.address(service, "token-broker_monitoring")
        answer = httpx2.get(
            f"http://{address}:{port}{path}", params=query, trust_env=False, timeout=10
        )
        return answer.raise_for_status().json()["data"]


def prepare(
    folder: Path,
    engine: Engine,
    compose: Path,
    images: Mapping[str, str],
    google: TlsGoogle,
    settings: Mapping[str, str],
) -> Installation:
    """Do everything before the first `docker compose up`: steps 1 to 4."""
    shutil.copy(ROOT / "compose.yaml", folder)
    shutil.copytree(ROOT / "deploy", folder / "deploy")
    client_secret = f"GOCSPX-{secrets.token_hex(12)}"
    google.standin.add_client(CLIENT_ID, client_secret, [f"{PUBLIC_URL}/auth/google/callback"])
    environment = _environment(folder, engine, compose)
    (written,) = [block for block in commands("## Set up, once") if "PUBLIC_HOST" in block]
    lines = written.replace("connect.example.com", "localhost") + "".join(
        f"{name}={value}\n"
        for name, value in {
            **images,
            "GOOGLE_SCOPES": f'"{CALENDAR} {CALENDAR_READONLY}"',
            "GOOGLE_DISCOVERY_URL": f"{GOOGLE_URL}/.well-known/openid-configuration",
            "PROXY_TLS": '"tls internal"',
            "RUNBOOK_BASE_URL": RUNBOOKS,
            **settings,
        }.items()
    )
    (folder / ".env").write_text(lines, encoding="utf-8")
    installed = Installation(
        engine, folder, environment, google, client_secret, secrets.token_urlsafe(12)
    )
    installed.run_in_terminal("deploy/compose/make-secrets")
    installed.key = _new_caller(engine, images["BROKER_IMAGE"], folder / "callers")
    return installed


def _environment(folder: Path, engine: Engine, compose: Path) -> Mapping[str, str]:
    shims = folder.parent / "bin"
    shims.mkdir()
    (shims / "docker").write_text(_DOCKER.format(compose=compose, path=DOCKER_PATH))
    (shims / "docker").chmod(0o755)
    environment = clean_environment(engine.environment)
    return {**environment, "PATH": f"{shims}:{os.environ['PATH']}", "TERM": "dumb"}


def _new_caller(engine: Engine, image: str, folder: Path) -> str:
    printed = engine.docker(
        *("run", "--rm", image, "callers", "new", "calendar-sync"),
        *("--can", "tokens:read,links:create,grants:read,grants:revoke", "--user", "*"),
        *("--scope", CALENDAR, "--scope", CALENDAR_READONLY),
        *("--return-to", "https://app.example.com/settings"),
    )
    key, _, stanza = printed.partition("\n\n")
    folder.mkdir()
    (folder / "callers.yaml").write_text(stanza + "\n", encoding="utf-8")
    return key.strip()


def start(installed: Installation) -> None:
    """Do steps 5 to 7."""
    _, initialize, everything = commands("## Set up, once")
    shown = installed.run_in_terminal(initialize)
    installed.unseal_keys = re.findall(r"Unseal Key \d: (\S+)", shown)
    (installed.root_token,) = re.findall(r"Initial Root Token: (\S+)", shown)
    unseal(installed)
    installed.run_in_terminal(
        "deploy/compose/set-up-openbao",
        [
            ("Root token: ", installed.root_token),
            ("Client id: ", CLIENT_ID),
            ("Client secret: ", installed.client_secret),
            ("New password", installed.operator_password),
        ],
    )
    installed.run_in_terminal(everything, within=240)


def unseal(installed: Installation) -> None:
    """Enter three of the five keys, one after another."""
    (block,) = commands("## Unseal OpenBao")
    for unseal_key in installed.unseal_keys[1:4]:
        installed.run_in_terminal(block, [("will be hidden", unseal_key)])


def as_operator(installed: Installation, more: Sequence[tuple[str, str]] = ()) -> Answers:
    """Return the answers to the prompts: `operator`'s login, then `more`."""
    return [("will be hidden", installed.operator_password), *more]


@contextmanager
def stopped(installed: Installation, *services: str) -> Iterator[None]:
    """Stop these services during the block; afterwards they are healthy again."""
    installed.run("stop", *services)
    try:
        yield
    finally:
        installed.run("--profile", "backup", "--profile", "monitoring", "up", "-d", "--wait")


def settings_of(service: str) -> dict[str, Any]:
    """Return a service of compose.yaml, merged."""
    composed: dict[str, Any] = yaml.safe_load(text_of("compose.yaml"))["services"][service]
    return composed
