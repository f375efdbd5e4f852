"""A consent on real parts: PostgreSQL, the Google stand-in, a callers file, two listeners.

The application's own wiring, without its background jobs, so that tests can reach each part.
"""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import parse_qsl, urlsplit

import asyncpg
import httpx2
from starlette.types import ASGIApp

from broker.app.grant_service import open_grant_service
from broker.app.internal_listener import internal_listener
from broker.app.process_context import open_process_context
from broker.app.public_listener import public_listener
from broker.app.token_service import TokenService, open_token_service
from broker.audit.trail import AuditTrail
from broker.callers.keys import hash_key
from broker.consent.links import ConnectLinks, LinkTokens
from broker.database.clock import DatabaseClock
from broker.database.database import Database
from broker.grants.model import AccessToken, Grant
from broker.grants.store import GrantStore
from broker.secret import Secret
from broker.settings import load_settings
from broker.telemetry.metrics import Metrics
from devstack.google_standin import GoogleStandin
from tests.support.audit import EMPTY_TRAIL
from tests.support.clock import ManualClock
from tests.support.scopes import CALENDAR_READONLY, TASKS_READONLY

MAIN = "https://app.example.com/auth/google/callback"
API = "https://api.example.com/auth/google/callback"
LOOPBACK = "http://localhost:8000/auth/google/callback"
REDIRECT_URIS = (MAIN, API, LOOPBACK)

RETURN_TO = "https://product.example.com/settings?tab=google"
KEY = "tb_" + "k" * 43
STRICT_KEY = "tb_" + "s" * 43
CLIENT_ID = "1234-broker.apps.googleusercontent.com"
CLIENT_SECRET = "GOCSPX-first-secret"
SECRET_KEY = Secret("a secret key for tests of 32 bytes and more")

ADA = "ada@example.com"
GRACE = "grace@example.com"

_CALLERS_FILE = f"""
callers:
  calendar-sync:
    keys: ["{hash_key(KEY)}"]
    can: [links:create]
    scopes: [{CALENDAR_READONLY}, {TASKS_READONLY}]
    users: ["*"]
    return_to: ["{RETURN_TO}"]
  careful:
    keys: ["{hash_key(STRICT_KEY)}"]
    can: [links:create]
    scopes: [{CALENDAR_READONLY}]
    users: ["alice"]
    return_to: ["{RETURN_TO}"]
    require_confirmation: true
"""


def query_of(url: str) -> dict[str, str]:
    """Return a URL's parameters, none of which may repeat."""
    pairs = parse_qsl(urlsplit(url).query, keep_blank_values=True)
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


@dataclass
class ConsentWorld:
    """Everything that takes part in a consent."""

    clock: ManualClock
    google: GoogleStandin
    database: Database
    links: ConnectLinks
    link_tokens: LinkTokens
    grants: GrantStore
    audit: AuditTrail
    metrics: Metrics
    public: ASGIApp
    internal: httpx2.AsyncClient
    secret_file: Path
    purge: Callable[[], Awaitable[None]]
    """The periodic job that deletes what is over."""
    connected: list[tuple[str, Grant, AccessToken | None]]
    """The arguments of each call when a consent became a grant."""
    _stack: AsyncExitStack = field(repr=False)

    async def browser(self, origin: str = "https://app.example.com") -> "Browser":
        """Return a browser with an empty cookie jar."""
        client = httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app=self.public, raise_app_exceptions=False),
            base_url=origin,
        )
        await self._stack.enter_async_context(client)
        return Browser(client, self.google)

    async def request_link(
        self, user_id: str = "alice", *, key: str = KEY, **body: Any
    ) -> httpx2.Response:
        """Request a link; `user_id` is put into the path as it is."""
        return await self.internal.post(
            f"/v1/users/{user_id}/connect-links",
            # As ASCII, which can also carry members that are not valid UTF-8.
            content=json.dumps({"scopes": [CALENDAR_READONLY], **body}),
            headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
        )

    async def link(self, user_id: str = "alice", **body: Any) -> dict[str, str]:
        """Create a link."""
        response = await self.request_link(user_id, **body)
        assert response.status_code == 201, response.text
        document: dict[str, str] = response.json()
        return document

    async def audited(self) -> list[tuple[str, str]]:
        """Return the actions and outcomes of all audit records, the oldest first."""
        await self.audit.flush()
        rows = await self.database.fetch("SELECT action, outcome FROM audit_events ORDER BY id")
        return [(row["action"], row["outcome"]) for row in rows]

    def consents(self, outcome: str) -> float:
        """Return the counter of one outcome."""
        labels = {"outcome": outcome}
        return self.metrics.registry.get_sample_value("broker_consents_total", labels) or 0.0

    def exchanges(self) -> int:
        """Return how many codes were exchanged at Google."""
        return self.google.requests.count("token", grant_type="authorization_code")

    async def grants_of(self, user_id: str = "alice") -> Sequence[Grant]:
        return await self.grants.list(user_id)


@dataclass
class Browser:
    """A browser that follows no redirect, so that tests see where each leads."""

    http: httpx2.AsyncClient
    google: GoogleStandin

    async def get(self, url: str, **headers: str) -> httpx2.Response:
        return await self.http.get(url, headers=headers)

    async def open(self, link: dict[str, str] | str) -> str:
        """Open a link; return the authorization URL."""
        response = await self.get(link if isinstance(link, str) else link["url"])
        assert response.status_code == 303, response.text
        return response.headers["location"]

    async def decide(self, authorization_url: str, account: str = ADA, **decision: Any) -> str:
        """Decide at Google; return the callback's URL."""
        return self.google.consent(authorization_url, account, **decision)

    async def connect(
        self, link: dict[str, str], account: str = ADA, **decision: Any
    ) -> httpx2.Response:
        """Complete the whole consent; return the callback's response."""
        url = await self.open(link)
        return await self.get(await self.decide(url, account, **decision))

    async def return_unprompted(
        self, world: "ConsentWorld", link: dict[str, str] | None = None
    ) -> httpx2.Response:
        """Return from a Google that did not prompt, to a grant that is invalid meanwhile."""
        await self.connect(await world.link())
        url = await self.open(link or await world.link(login_hint=ADA))
        assert "prompt" not in query_of(url)
        await world.database.execute(
            "UPDATE grants SET status = 'reauthorization_required', version = version + 1"
        )
        return await self.get(await self.decide(url))


@asynccontextmanager
async def consent_world(
    google: GoogleStandin, database_url: Secret, clock: ManualClock, folder: Path
) -> AsyncIterator[ConsentWorld]:
    """Wire both listeners, and close them again."""
    google.add_client(CLIENT_ID, CLIENT_SECRET, REDIRECT_URIS)
    secret_file, callers_file = folder / "client-secret", folder / "callers.yaml"
    secret_file.write_text(CLIENT_SECRET)
    callers_file.write_text(_CALLERS_FILE)
    settings = load_settings(
        {
            "GOOGLE_CLIENT_ID": CLIENT_ID,
            "GOOGLE_CLIENT_SECRET_FILE": str(secret_file),
            "GOOGLE_REDIRECT_URI": ",".join(REDIRECT_URIS),
            "GOOGLE_SCOPES": f"{CALENDAR_READONLY} {TASKS_READONLY}",
            "GOOGLE_DISCOVERY_URL": google.discovery_url,
            "DATABASE_URL": database_url.reveal(),
            "SECRET_KEY": SECRET_KEY.reveal(),
            "BROKER_CALLERS_FILE": str(callers_file),
        }
    )
    async with AsyncExitStack() as stack:
        keeping = stack.enter_context(
            mock.patch.object(TokenService, "keep_first_token", autospec=True)
        )
        connected: list[tuple[str, Grant, AccessToken | None]] = []
        keeping.side_effect = lambda _tokens, *arguments: connected.append(arguments)
        context = await open_process_context(settings, DatabaseClock(clock), stack)
        tokens = open_token_service(context, stack)
        grants = open_grant_service(context, tokens, stack)
        public = public_listener(context, tokens, grants)
        internal = httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app=internal_listener(context, tokens, grants)),
            base_url="http://broker.internal",
        )
        yield ConsentWorld(
            clock=clock,
            google=google,
            database=context.database,
            links=grants.connect_links,
            link_tokens=grants.link_tokens,
            grants=context.grants,
            audit=context.audit,
            metrics=context.metrics,
            public=public.app,
            internal=await stack.enter_async_context(internal),
            secret_file=secret_file,
            purge=public.purges["end consents"],
            connected=connected,
            _stack=stack,
        )


async def empty_tables(database_url: Secret) -> None:
    """Empty every table that a consent writes to."""
    connection = await asyncpg.connect(database_url.reveal())
    try:
        await connection.execute(
            "TRUNCATE connect_links, grants, pending_consents, pending_revocations CASCADE"
        )
        await connection.execute(EMPTY_TRAIL)
    finally:
        await connection.close()
