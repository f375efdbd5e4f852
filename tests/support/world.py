"""The whole broker in the test's process, assembled as `broker serve` assembles it."""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import asyncpg
import httpx2
import yaml

from broker.app import Broker, assembled
from broker.callers.keys import hash_key, new_key
from broker.settings import Settings, load_settings
from devstack.google_standin import GoogleStandin
from tests.support.clock import ManualClock
from tests.support.scopes import CALENDAR, CALENDAR_READONLY, GMAIL_READONLY
from tests.support.waiting import eventually

CLIENT_ID = "test-client.apps.googleusercontent.com"
CLIENT_SECRET = "GOCSPX-test-client-secret"
ORIGIN = "http://127.0.0.1:8000"
REDIRECT_URI = f"{ORIGIN}/auth/google/callback"
API_ORIGIN = "http://localhost:8000"
API_REDIRECT_URI = f"{API_ORIGIN}/auth/google/callback"
RETURN_TO = "https://app.example.com/settings"

SCOPES = (CALENDAR, CALENDAR_READONLY, GMAIL_READONLY)

ADA = "ada@example.com"
GRACE = "grace@example.com"
"""Accounts of the Google stand-in."""


def environment(database_url: str, standin: GoogleStandin, callers_file: Path) -> dict[str, str]:
    """Return the settings of a broker, with the OAuth client in the environment."""
    return {
        "GOOGLE_CLIENT_ID": CLIENT_ID,
        "GOOGLE_CLIENT_SECRET": CLIENT_SECRET,
        "GOOGLE_REDIRECT_URI": f"{REDIRECT_URI},{API_REDIRECT_URI}",
        "GOOGLE_SCOPES": " ".join(SCOPES),
        "GOOGLE_DISCOVERY_URL": standin.discovery_url,
        "DATABASE_URL": database_url,
        "SECRET_KEY": "a-test-key-of-more-than-32-bytes-0123456789",
        "BROKER_CALLERS_FILE": str(callers_file),
    }


def stanza(key: str, **changes: Any) -> dict[str, Any]:
    """Return the entry of a caller with all permissions for the calendar scopes."""
    return {
        "keys": [hash_key(key)],
        "can": ["tokens:read", "links:create", "grants:read", "grants:revoke"],
        "scopes": [CALENDAR, CALENDAR_READONLY],
        "users": ["*"],
        "return_to": [RETURN_TO],
        **changes,
    }


def write_callers(
    path: Path,
    callers: Mapping[str, Mapping[str, Any]],
    issuers: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Write a callers file with these entries."""
    document: dict[str, Any] = {"callers": dict(callers)}
    if issuers is not None:
        document["issuers"] = dict(issuers)
    path.write_text(yaml.safe_dump(document), encoding="utf-8")


@dataclass
class ConsentResult:
    """The last response of a consent in a browser."""

    response: httpx2.Response
    link_id: str

    @property
    def status(self) -> str | None:
        """The `status` in the redirect to `return_to`; None if the consent ended elsewhere."""
        return self._query.get("status")

    @property
    def confirmation(self) -> str:
        """The confirmation code in that redirect."""
        return self._query["confirmation"]

    @property
    def _query(self) -> dict[str, str]:
        query = urlsplit(self.response.headers.get("location", "")).query
        return {name: values[0] for name, values in parse_qs(query).items()}


@dataclass
class World:
    """A broker with its callers file, its Google, its clock, and a client per listener."""

    broker: Broker
    settings: Settings
    standin: GoogleStandin
    clock: ManualClock
    callers_file: Path
    key: str
    public: httpx2.AsyncClient
    internal: httpx2.AsyncClient
    ops: httpx2.AsyncClient
    _connection: asyncpg.Connection | None = None
    _is_closed: bool = False
    _connection_lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def authorization(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}

    def browser(self, origin: str = ORIGIN) -> httpx2.AsyncClient:
        """Return a browser with its own cookies, which does not follow redirects by itself."""
        return _client(self.broker.public, origin)

    async def create_link(self, user_id: str, **body: Any) -> httpx2.Response:
        """Request a connect link."""
        body.setdefault("scopes", [CALENDAR_READONLY])
        return await self.internal.post(
            f"/v1/users/{quote(user_id, safe='')}/connect-links",
            json=body,
            headers=self.authorization,
        )

    async def start_consent(
        self, browser: httpx2.AsyncClient, user_id: str = "user-1", **body: Any
    ) -> str:
        """Open a new connect link in a browser; return the authorization URL."""
        link = (await self.create_link(user_id, **body)).raise_for_status().json()
        answer = await browser.get(link["url"])
        assert answer.status_code == 303, answer.text
        return str(answer.headers["location"])

    async def connect(
        self,
        user_id: str = "user-1",
        account: str = ADA,
        *,
        untick: Collection[str] = (),
        deny: bool = False,
        browser: httpx2.AsyncClient | None = None,
        **body: Any,
    ) -> ConsentResult:
        """Create a link, consent at Google, and return to the callback."""
        link = (await self.create_link(user_id, **body)).raise_for_status().json()
        async with AsyncExitStack() as stack:
            if browser is None:
                browser = await stack.enter_async_context(self.browser(_origin(link["url"])))
            to_google = await browser.get(link["url"])
            assert to_google.status_code == 303, to_google.text
            callback = self.standin.consent(
                to_google.headers["location"], account, untick=untick, deny=deny
            )
            return ConsentResult(await browser.get(callback), link["id"])

    async def connect_pending(
        self, user_id: str = "user-1", account: str = ADA, **body: Any
    ) -> ConsentResult:
        """Consent through a link that is to be confirmed."""
        consent = await self.connect(user_id, account, confirm=True, return_to=RETURN_TO, **body)
        assert consent.status == "connected", (consent.response.headers, consent.response.text)
        return consent

    async def confirm(self, consent: ConsentResult, **changes: str) -> httpx2.Response:
        """Confirm a consent; `changes` may set another `code` or another caller's `key`."""
        key = changes.get("key", self.key)
        return await self.internal.post(
            f"/v1/connect-links/{consent.link_id}/confirm",
            json={"code": changes.get("code", consent.confirmation)},
            headers={"Authorization": f"Bearer {key}"},
        )

    async def token(self, user_id: str = "user-1", **query: str | int) -> httpx2.Response:
        """Request a token."""
        return await self.internal.get(
            f"/v1/users/{quote(user_id, safe='')}/token",
            params=dict(query),
            headers=self.authorization,
        )

    async def grants(self, user_id: str = "user-1") -> Sequence[Mapping[str, Any]]:
        """Return the user's grants as the API lists them."""
        answer = await self.internal.get(
            f"/v1/users/{quote(user_id, safe='')}/grants", headers=self.authorization
        )
        grants: list[Mapping[str, Any]] = answer.raise_for_status().json()["grants"]
        return grants

    async def revoke(self, user_id: str = "user-1", sub: str | None = None) -> httpx2.Response:
        """Revoke a user's grants, or the one of an account."""
        path = f"/v1/users/{quote(user_id, safe='')}/grants"
        if sub is not None:
            path += f"/{quote(sub, safe='')}"
        return await self.internal.delete(path, headers=self.authorization)

    async def sql(self, query: str, *args: object) -> list[asyncpg.Record]:
        """Query the database directly; also after the broker has ended."""
        async with self._connection_lock:
            if self._connection is None or self._connection.is_closed():
                self._connection = await asyncpg.connect(self.settings.database_url.reveal())
            try:
                return await self._connection.fetch(query, *args)
            finally:
                if self._is_closed:
                    await self._disconnect()

    async def close(self) -> None:
        """Close the direct connection to the database, now and after each later query."""
        self._is_closed = True
        async with self._connection_lock:
            await self._disconnect()

    async def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            # The socket is closed in the loop's next turn.
            await asyncio.sleep(0)

    async def until_revocations_are_sent(self) -> None:
        """Return once no revocation is queued: until then, consents for its account fail."""

        async def are_sent() -> bool:
            return not await self.sql("SELECT FROM pending_revocations")

        await eventually(are_sent)

    async def metric(self, name: str, **labels: str) -> float:
        """Return a sample as Prometheus scrapes it; 0 if there is none yet."""
        wanted = {f'{label}="{value}"' for label, value in labels.items()}
        text = (await self.ops.get("/metrics")).text
        for line in text.splitlines():
            if line.startswith(name) and wanted <= set(_labels_of(line, name)):
                return float(line.rsplit(" ", 1)[1])
        return 0.0

    async def rewrite_callers(
        self,
        callers: Mapping[str, Mapping[str, Any]],
        issuers: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        """Replace the callers file, and return once the broker has loaded it."""
        marker = new_key()
        write_callers(self.callers_file, {**callers, "marker": stanza(marker)}, issuers)
        async with asyncio.timeout(10):
            while True:
                answer = await self.internal.get(
                    "/v1/users/nobody/grants", headers={"Authorization": f"Bearer {marker}"}
                )
                if answer.status_code == 200:
                    return
                await asyncio.sleep(0.05)

    def refreshes_at_google(self) -> int:
        """Return how many refreshes Google has received."""
        return self.standin.requests.count("token", grant_type="refresh_token")


def _labels_of(line: str, name: str) -> list[str]:
    rest = line[len(name) :]
    return rest[1 : rest.index("}")].split(",") if rest.startswith("{") else []


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _client(app: Any, origin: str) -> httpx2.AsyncClient:
    transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
    return httpx2.AsyncClient(transport=transport, base_url=origin)


@asynccontextmanager
async def open_world(
    folder: Path,
    database_url: str,
    standin: GoogleStandin,
    clock: ManualClock,
    *,
    callers: Mapping[str, Mapping[str, Any]] | None = None,
    issuers: Mapping[str, Mapping[str, Any]] | None = None,
    changes: Mapping[str, str] | None = None,
) -> AsyncIterator[World]:
    """Run a broker with its surroundings; `changes` are settings that differ."""
    key = new_key()
    callers_file = folder / "callers.yaml"
    write_callers(callers_file, {"calendar-sync": stanza(key), **(callers or {})}, issuers)
    standin.add_client(CLIENT_ID, CLIENT_SECRET, [REDIRECT_URI, API_REDIRECT_URI])
    settings = load_settings(environment(database_url, standin, callers_file) | dict(changes or {}))
    async with (
        assembled(settings, clock) as broker,
        _client(broker.public, ORIGIN) as public,
        _client(broker.internal, "http://127.0.0.1:8001") as internal,
        _client(broker.ops, "http://127.0.0.1:8002") as ops,
    ):
        world = World(broker, settings, standin, clock, callers_file, key, public, internal, ops)
        try:
            yield world
        finally:
            await world.close()
