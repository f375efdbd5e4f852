"""An installation of the broker, made step by step as an operator does, and its use."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote, urlencode
from urllib.request import ProxyHandler, Request, build_opener
from uuid import uuid4

import google.oauth2.credentials
import googleapiclient.discovery
from playwright.async_api import Page, Response, expect

from devstack.google_standin import GoogleStandin
from devstack.openbao import OpenBao
from devstack.postgres import EmbeddedPostgres
from tests.support.browser import continue_to_google
from tests.support.openbao import VaultPlace
from tests.support.processes import BrokerProcess, Ports, run_broker
from tests.support.scopes import CALENDAR, CALENDAR_READONLY

CLIENT_ID = "528374-acceptance.apps.googleusercontent.com"
CLIENT_SECRET = "GOCSPX-acceptance-first"


@dataclass(frozen=True)
class Answer:
    """An answer of the broker's API."""

    status: int
    headers: dict[str, str]
    text: str

    @property
    def body(self) -> Any:
        return json.loads(self.text)

    @property
    def code(self) -> str | None:
        """The problem's code; None if it is no problem."""
        return self.body.get("code") if self.text else None


class Service:
    """An internal service, which needs only a URL and its key, and no library."""

    def __init__(self, url: str, key: str) -> None:
        self._url = url
        self.key = key
        self._opener = build_opener(ProxyHandler({}))

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        request = Request(
            self._url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Authorization": f"Bearer {self.key}",
                **({"Content-Type": "application/json"} if body is not None else {}),
                **headers,
            },
        )
        try:
            with self._opener.open(request, timeout=30) as answer:
                return Answer(answer.status, dict(answer.headers), answer.read().decode())
        except HTTPError as error:
            with error:
                return Answer(error.code, dict(error.headers), error.read().decode())

    def connect_link(self, user_id: str, scopes: Sequence[str], **more: Any) -> dict[str, str]:
        answer = self.ask("POST", f"{_user(user_id)}/connect-links", {"scopes": scopes, **more})
        assert answer.status == 201, answer
        link: dict[str, str] = answer.body
        return link

    def token(self, user_id: str, **query: str | int) -> Answer:
        return self.ask("GET", f"{_user(user_id)}/token?{urlencode(query)}")

    def access_token(self, user_id: str, **query: str | int) -> str:
        answer = self.token(user_id, **query)
        assert answer.status == 200, answer
        token: str = answer.body["access_token"]
        return token

    def grants(self, user_id: str) -> list[dict[str, Any]]:
        answer = self.ask("GET", f"{_user(user_id)}/grants")
        assert answer.status == 200, answer
        grants: list[dict[str, Any]] = answer.body["grants"]
        return grants

    def revoke(self, user_id: str, sub: str | None = None) -> Answer:
        which = f"/{quote(sub, safe='')}" if sub else ""
        return self.ask("DELETE", f"{_user(user_id)}/grants{which}")


def _user(user_id: str) -> str:
    return f"/v1/users/{quote(user_id, safe='')}"


@dataclass
class Installation:
    """One `broker serve` and its surroundings."""

    serving: BrokerProcess
    google: GoogleStandin
    vault: VaultPlace
    postgres: EmbeddedPostgres
    database_name: str
    callers_file: Path
    service: Service

    @property
    def redirect_uris(self) -> tuple[str, str]:
        """The redirect URIs of the main and of the `api.` domain."""
        return redirect_uris(self.serving.ports)

    def rotate_secret(self, client_secret: str) -> int:
        """Rotate as an operator does: at Google, then in OpenBao. Returns the KV version."""
        self.google.change_client_secret(CLIENT_ID, client_secret)
        return self.vault.put(client_secret, CLIENT_ID)


def redirect_uris(ports: Ports) -> tuple[str, str]:
    hosts = ("127.0.0.1", "localhost")
    main, api = (f"http://{host}:{ports.public}/auth/google/callback" for host in hosts)
    return main, api


def set_up(
    folder: Path,
    postgres: EmbeddedPostgres,
    openbao: OpenBao,
    google: GoogleStandin,
    **changes: str,
) -> Installation:
    """Install the broker without starting it; `changes` are changed settings."""
    ports = Ports.free()
    google.add_client(CLIENT_ID, CLIENT_SECRET, redirect_uris(ports))
    vault = VaultPlace.new(openbao)
    vault.put(CLIENT_SECRET, CLIENT_ID)
    role = vault.create_approle()
    database_name = f"acceptance_{uuid4().hex}"
    callers_file = folder / "callers.yaml"
    settings = {
        "GOOGLE_REDIRECT_URI": ",".join(redirect_uris(ports)),
        "GOOGLE_SCOPES": f"{CALENDAR} {CALENDAR_READONLY}",
        "GOOGLE_DISCOVERY_URL": google.discovery_url,
        "DATABASE_URL": postgres.create_database(database_name),
        "SECRET_KEY": "an-acceptance-key-of-more-than-32-bytes-012345",
        "BROKER_SECRET_SOURCE": "vault",
        "VAULT_ADDR": openbao.address,
        "VAULT_AUTH": "approle",
        "VAULT_ROLE_ID": role.role_id.reveal(),
        "VAULT_SECRET_ID": role.secret_id.reveal(),
        "VAULT_KV_PATH": vault.path,
        "BROKER_CALLERS_FILE": str(callers_file),
        **changes,
    }
    migrated = run_broker("migrate", settings=settings)
    assert migrated.returncode == 0, migrated.stderr
    key = new_caller(callers_file, settings)
    serving = BrokerProcess(settings, folder / "broker.log", ports)
    return Installation(
        serving, google, vault, postgres, database_name, callers_file,
        Service(serving.internal_url, key),
    )  # fmt: skip


def new_caller(callers_file: Path, settings: dict[str, str]) -> str:
    """Run `broker callers new`, write its stanza to the file, and return the key."""
    made = run_broker(
        "callers", "new", "calendar-sync",
        "--can", "tokens:read,links:create,grants:read,grants:revoke",
        "--scope", CALENDAR, "--scope", CALENDAR_READONLY,
        "--user", "*", "--return-to", "https://app.example.com/settings",
        settings=settings,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    key, _, stanza = made.stdout.partition("\n\n")
    callers_file.write_text(stanza, encoding="utf-8")
    return key.strip()


async def allow(page: Page, link: str, account: str) -> Response:
    """Open a link, choose an account, and allow; return the broker's last answer."""
    await page.goto(link)
    await continue_to_google(page)
    await choose_account(page, account)
    async with page.expect_response(lambda answer: "/auth/google/callback" in answer.url) as last:
        await page.get_by_role("button", name="Allow").click()
    return await last.value


async def choose_account(page: Page, account: str) -> None:
    """Choose an account, which Google may not know yet, unless a hint has chosen it."""
    allow_button = page.get_by_role("button", name="Allow")
    another = page.locator("details.another")
    # The interstitial may still be shown, and the list of accounts incomplete.
    await expect(allow_button.or_(another).first).to_be_visible()
    if await allow_button.count():
        return
    known = page.locator(f'[data-account="{account}"]')
    if await known.count():
        await known.click()
        return
    if await another.get_attribute("open") is None:
        await page.get_by_text("Use another account").click()
    await page.get_by_label("Email").fill(account)
    await page.get_by_role("button", name="Continue").click()


def calendar(google_url: str, access_token: str) -> Any:
    """Return Google's Python client for its Calendar API, with the stand-in's address."""
    return googleapiclient.discovery.build(
        "calendar",
        "v3",
        credentials=google.oauth2.credentials.Credentials(token=access_token),  # type: ignore[no-untyped-call]
        client_options={"api_endpoint": google_url},
        static_discovery=True,
        cache_discovery=False,
    )
