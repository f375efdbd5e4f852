"""A consent on real parts: PostgreSQL, the Google stand-in, a callers file, two listeners."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit
from uuid import uuid4

import asyncpg
import httpx2
from starlette.applications import Starlette
from starlette.routing import BaseRoute

from broker.audit.trail import AuditTrail
from broker.callers.failed_authentications import FailedAttempts
from broker.callers.gate import Gate
from broker.callers.keys import hash_key
from broker.callers.limits import CallerLimits
from broker.callers.registry import CallerRegistry
from broker.callers.workloads import WorkloadIdentities
from broker.consent.browser_routes import public_handlers, public_routes
from broker.consent.browsers import BrowserCookies
from broker.consent.departures import Departures
from broker.consent.endings import TripEndings
from broker.consent.exchange import CodeExchange
from broker.consent.flow import ConsentFlow
from broker.consent.link_routes import LinkRoutes
from broker.consent.links import Link, LinkTokens
from broker.consent.pages import TranslatedPages
from broker.consent.policies import LinkPolicies
from broker.consent.questions import Questions
from broker.consent.records import ConsentRecords
from broker.consent.store import ConsentStore
from broker.consent.transactions import Transactions
from broker.crypto.sealing import Sealer, local_sealing_keys
from broker.crypto.signing import Signer
from broker.database.database import Database
from broker.google.discovery import Discovery
from broker.google.id_tokens import IdTokenVerifier
from broker.google.oauth import GoogleOAuth
from broker.grants.lookups import TokenLookups
from broker.grants.model import AccessToken, Grant
from broker.grants.pending.store import PendingConsents
from broker.grants.store import GrantStore
from broker.issuers.documents import IssuerDocuments
from broker.issuers.refusals import JwtRefusals
from broker.issuers.trusted import TrustedIssuers
from broker.secret import Secret
from broker.secret_sources import open_source
from broker.secret_sources.current import CurrentClient
from broker.server.listener import Listener
from broker.settings import EnvironmentSource, SecretSetting
from broker.telemetry.metrics import Metrics
from broker.web.addresses import ClientAddresses
from broker.web.errors import INTERNAL_HANDLERS
from broker.web.request_ids import RequestIds
from devstack.google_standin import GoogleStandin
from tests.support.audit import EMPTY_TRAIL, KEYS
from tests.support.clock import ManualClock

CALENDAR = "https://www.googleapis.com/auth/calendar.readonly"
TASKS = "https://www.googleapis.com/auth/tasks.readonly"
DRIVE = "https://www.googleapis.com/auth/drive.readonly"
EMAIL = "https://www.googleapis.com/auth/userinfo.email"

MAIN = "https://app.example.com/auth/google/callback"
API = "https://api.example.com/auth/google/callback"
LOOPBACK = "http://localhost:8000/auth/google/callback"
REDIRECT_URIS = (MAIN, API, LOOPBACK)
ORIGINS = tuple(uri.removesuffix("/auth/google/callback") for uri in REDIRECT_URIS)

RETURN_TO = "https://product.example.com/settings?tab=google"
KEY = "tb_" + "k" * 43
STRICT_KEY = "tb_" + "s" * 43
CLIENT_ID = "1234-broker.apps.googleusercontent.com"
CLIENT_SECRET = "GOCSPX-first-secret"
SECRET_KEY = Secret("a secret key for tests, of 32 bytes and more")

ADA = "ada@example.com"
GRACE = "grace@example.com"

_CALLERS_FILE = f"""
callers:
  calendar-sync:
    keys: ["{hash_key(KEY)}"]
    can: [links:create]
    scopes: [{CALENDAR}, {TASKS}]
    users: ["*"]
    return_to: ["{RETURN_TO}"]
  careful:
    keys: ["{hash_key(STRICT_KEY)}"]
    can: [links:create]
    scopes: [{CALENDAR}]
    users: ["alice"]
    return_to: ["{RETURN_TO}"]
    require_confirmation: true
"""


def query_of(url: str) -> dict[str, str]:
    """A URL's parameters, each of which comes once."""
    pairs = parse_qsl(urlsplit(url).query, keep_blank_values=True)
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


@dataclass
class ConsentWorld:
    """Everything that a consent touches."""

    clock: ManualClock
    google: GoogleStandin
    database: Database
    store: ConsentStore
    grants: GrantStore
    links: LinkTokens
    flow: ConsentFlow
    current: CurrentClient
    audit: AuditTrail
    metrics: Metrics
    public: Listener
    internal: httpx2.AsyncClient
    secret_file: Path
    connected: list[tuple[str, Grant, AccessToken | None]]
    """What `on_connected` was told."""
    _stack: AsyncExitStack = field(repr=False)

    async def browser(self, origin: str = "https://app.example.com") -> "Browser":
        """A browser with an empty cookie jar."""
        client = httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app=self.public, raise_app_exceptions=False),
            base_url=origin,
        )
        await self._stack.enter_async_context(client)
        return Browser(client, self.google)

    async def ask_for_link(
        self, user_id: str = "alice", *, key: str = KEY, **body: Any
    ) -> httpx2.Response:
        """The API's answer to a request for a link; `user_id` as it stands in the path."""
        return await self.internal.post(
            f"/v1/users/{user_id}/connect-links",
            # As ASCII, so that members which UTF-8 could not carry get there too.
            content=json.dumps({"scopes": [CALENDAR], **body}),
            headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
        )

    async def link(self, user_id: str = "alice", **body: Any) -> dict[str, str]:
        """A fresh link."""
        response = await self.ask_for_link(user_id, **body)
        assert response.status_code == 201, response.text
        document: dict[str, str] = response.json()
        return document

    async def audited(self) -> list[tuple[str, str]]:
        """Actions and outcomes, the oldest first."""
        await self.audit.flush()
        rows = await self.database.fetch("SELECT action, outcome FROM audit_events ORDER BY id")
        return [(row["action"], row["outcome"]) for row in rows]

    def consents(self, outcome: str) -> float:
        """The counter of one outcome."""
        labels = {"outcome": outcome}
        return self.metrics.registry.get_sample_value("broker_consents_total", labels) or 0.0

    def exchanges(self) -> int:
        """How many codes were put to Google."""
        return self.google.requests.count("token", grant_type="authorization_code")

    async def grants_of(self, user_id: str = "alice") -> Sequence[Grant]:
        return await self.grants.list(user_id)


@dataclass
class Browser:
    """A browser that stops at every redirect, so that tests see where it would go."""

    http: httpx2.AsyncClient
    google: GoogleStandin

    async def get(self, url: str, **headers: str) -> httpx2.Response:
        return await self.http.get(url, headers=headers)

    async def open(self, link: dict[str, str] | str) -> str:
        """Follow a link up to Google; gives the authorization URL."""
        response = await self.get(link if isinstance(link, str) else link["url"])
        assert response.status_code == 303, response.text
        return response.headers["location"]

    async def decide(self, authorization_url: str, account: str = ADA, **decision: Any) -> str:
        """Decide at Google; gives the callback's URL."""
        return self.google.consent(authorization_url, account, **decision)

    async def connect(
        self, link: dict[str, str], account: str = ADA, **decision: Any
    ) -> httpx2.Response:
        """All of it; gives the callback's answer."""
        url = await self.open(link)
        return await self.get(await self.decide(url, account, **decision))

    async def answer_unprompted(
        self, world: "ConsentWorld", link: dict[str, str] | None = None
    ) -> httpx2.Response:
        """Come back from a Google that was not told to ask, to a grant that has died meanwhile."""
        await self.connect(await world.link())
        url = await self.open(link or await world.link(login_hint=ADA))
        assert "prompt" not in query_of(url)
        await world.database.execute(
            "UPDATE grants SET status = 'reauthorization_required', version = version + 1"
        )
        return await self.get(await self.decide(url))


@asynccontextmanager
async def consent_world(
    google: GoogleStandin,
    database_url: Secret,
    clock: ManualClock,
    http: httpx2.AsyncClient,
    folder: Path,
) -> AsyncIterator[ConsentWorld]:
    """The world, from first wire to last."""
    metrics = Metrics()
    google.add_client(CLIENT_ID, CLIENT_SECRET, REDIRECT_URIS)
    secret_file, callers_file = folder / "client-secret", folder / "callers.yaml"
    secret_file.write_text(CLIENT_SECRET)
    callers_file.write_text(_CALLERS_FILE)
    async with AsyncExitStack() as stack:
        database = Database(database_url)
        await database.open()
        stack.push_async_callback(database.close)
        discovery = Discovery(google.discovery_url, http, clock, metrics)
        oauth = GoogleOAuth(discovery, http, clock, metrics)
        source = EnvironmentSource(
            SecretSetting("GOOGLE_CLIENT_ID", value=Secret(CLIENT_ID)),
            SecretSetting("GOOGLE_CLIENT_SECRET", path=secret_file),
        )
        current = CurrentClient(open_source(source, clock), metrics, clock)
        await current.load()
        stack.push_async_callback(current.aclose)
        sealer = Sealer(local_sealing_keys([SECRET_KEY]))
        grants = GrantStore(database, sealer, clock, keep_access_tokens=True)
        store = ConsentStore(database, sealer, clock)
        audit = AuditTrail(database, clock, metrics, KEYS)
        links = LinkTokens(Signer([SECRET_KEY], "links"))
        connected: list[tuple[str, Grant, AccessToken | None]] = []
        registry = CallerRegistry(callers_file, (CALENDAR, TASKS), clock, metrics)
        registry.load()
        stack.callback(registry.close)
        records = ConsentRecords(audit, metrics)
        browsers = BrowserCookies(Signer([SECRET_KEY], "browser cookie"))
        transactions = Transactions(Signer([SECRET_KEY], "state"))
        questions = Questions(grants, current, (CALENDAR, TASKS))
        policies = LinkPolicies(registry.named, (CALENDAR, TASKS))
        endings = TripEndings(records, links, clock)
        lookups = TokenLookups([SECRET_KEY])
        pending = PendingConsents(
            database, sealer, clock, grants, keep_access_tokens=True, lookups=lookups
        )
        departures = Departures(
            store=store,
            links=links,
            browsers=browsers,
            proofs=Signer([SECRET_KEY], "page before"),
            transactions=transactions,
            questions=questions,
            policies=policies,
            oauth=oauth,
            discovery=discovery,
            current=current,
            endings=endings,
            clock=clock,
        )
        flow = ConsentFlow(
            departures=departures,
            store=store,
            browsers=browsers,
            transactions=transactions,
            questions=questions,
            policies=policies,
            grants=grants,
            pending=pending,
            discovery=discovery,
            exchange=CodeExchange(
                oauth, IdTokenVerifier(discovery, http, clock, metrics), current, clock
            ),
            endings=endings,
            records=records,
            on_connected=lambda *told: connected.append(told),
        )
        routes = LinkRoutes(
            gate=Gate(
                registry,
                audit,
                _no_workloads(registry, http, clock, metrics),
                CallerLimits(metrics),
                FailedAttempts(ClientAddresses((), clock), metrics),
            ),
            store=store,
            links=links,
            audit=audit,
            clock=clock,
            allowed_scopes=("openid", "email", CALENDAR, TASKS),
            redirect_uris=REDIRECT_URIS,
        )
        internal = _listener("internal", routes.routes(), INTERNAL_HANDLERS)
        pages = TranslatedPages(REDIRECT_URIS)
        public = _listener("public", public_routes(flow, pages, ORIGINS), public_handlers(pages))
        api = httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app=internal), base_url="http://broker.internal"
        )
        yield ConsentWorld(
            clock=clock,
            google=google,
            database=database,
            store=store,
            grants=grants,
            links=links,
            flow=flow,
            current=current,
            audit=audit,
            metrics=metrics,
            public=public,
            internal=await stack.enter_async_context(api),
            secret_file=secret_file,
            connected=connected,
            _stack=stack,
        )


def _no_workloads(
    registry: CallerRegistry, http: httpx2.AsyncClient, clock: ManualClock, metrics: Metrics
) -> WorkloadIdentities:
    issuers = TrustedIssuers(IssuerDocuments(http, metrics), clock, metrics)
    return WorkloadIdentities(registry, issuers, JwtRefusals(clock, metrics))


def _listener(name: str, routes: Sequence[BaseRoute], handlers: Mapping[Any, Any]) -> Listener:
    app = Starlette(routes=routes, exception_handlers=handlers)
    app.router.redirect_slashes = False
    return Listener(name, app, metrics=Metrics(), request_ids=RequestIds())


def a_link(*, user_id: str = "alice", return_to: str | None = None) -> Link:
    """A link out of thin air, for tests that need no table."""
    return Link(
        id=uuid4(),
        caller="calendar-sync",
        user_id=user_id,
        scopes=("openid", "email", CALENDAR),
        redirect_uri=MAIN,
        return_to=return_to,
        login_hint=None,
        force_consent=False,
        expires_at=datetime(2026, 1, 1, 12, 10, tzinfo=UTC),
        completed_at=None,
    )


async def forget_everything(database_url: Secret) -> None:
    """Empty every table that a consent writes to."""
    connection = await asyncpg.connect(database_url.reveal())
    try:
        await connection.execute(
            "TRUNCATE connect_links, grants, pending_consents, pending_revocations CASCADE"
        )
        await connection.execute(EMPTY_TRAIL)
    finally:
        await connection.close()
