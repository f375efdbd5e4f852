"""What the rooms stand on, made once: settings, database, OAuth client, callers, keys.

Raises `StartError` where something is missing without which nothing can be served.
"""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

import httpx2
from starlette.applications import Starlette
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from broker.app.first_values import start_at_zero, start_callers_at_zero, start_issuers_at_zero
from broker.app.gauges import observe_storage
from broker.audit.keys import audit_keys
from broker.audit.trail import AuditTrail
from broker.callers.callers_file import CallersFileError
from broker.callers.failed_authentications import FailedAttempts
from broker.callers.gate import Gate
from broker.callers.limits import CallerLimits
from broker.callers.registry import CallerRegistry
from broker.callers.workloads import WorkloadIdentities
from broker.clock import Clock
from broker.crypto.sealing import Sealer, local_sealing_keys
from broker.database.clock import DatabaseClock
from broker.database.database import Database, StorageUnavailable
from broker.database.schema import SchemaError, applied_migrations, check_schema
from broker.google.discovery import Discovery
from broker.google.errors import GoogleUnavailable
from broker.google.http import google_http_client
from broker.google.oauth import GoogleOAuth
from broker.grants.known_changes import KnownChanges
from broker.grants.lookups import TokenLookups
from broker.grants.store import GrantStore
from broker.issuers.documents import IssuerDocuments
from broker.issuers.refusals import JwtRefusals
from broker.issuers.trusted import TrustedIssuers
from broker.pages.forms import origin_of
from broker.secret_sources import open_source
from broker.secret_sources.current import CurrentClient
from broker.secret_sources.source import SourceError
from broker.server.fast_path import AnswerAtOnce
from broker.server.listener import Listener
from broker.settings import Settings
from broker.telemetry.failed_revocations import FailedRevocations
from broker.telemetry.metrics import Metrics
from broker.web.addresses import ClientAddresses
from broker.web.errors import ExceptionHandlers
from broker.web.request_ids import RequestIds

_GOOGLE_SOON_SECONDS = 1.0
"""How long a page waits for what it can do without."""


class StartError(Exception):
    """The broker can't start; the message says what is wrong and what to do."""


@dataclass(frozen=True, slots=True)
class Ground:
    """What the rooms stand on."""

    settings: Settings
    clock: DatabaseClock
    metrics: Metrics
    database: Database
    client: CurrentClient
    registry: CallerRegistry
    issuers: TrustedIssuers
    jwt_refusals: JwtRefusals
    audit: AuditTrail
    failed_revocations: FailedRevocations
    gate: Gate
    limits: CallerLimits
    addresses: ClientAddresses
    sealer: Sealer
    lookups: TokenLookups
    known_changes: KnownChanges
    grants: GrantStore
    http: httpx2.AsyncClient
    discovery: Discovery
    google: GoogleOAuth
    request_ids: RequestIds

    async def way_to_google(self) -> Sequence[str]:
        """The origin of Google's consent pages; nothing while it can't be found out soon."""
        try:
            async with asyncio.timeout(_GOOGLE_SOON_SECONDS):
                return [origin_of((await self.discovery.endpoints()).authorization)]
        except (GoogleUnavailable, TimeoutError):
            return []

    def listener(
        self,
        name: str,
        app: ASGIApp,
        *,
        answer_at_once: AnswerAtOnce | None = None,
        is_for_browsers: bool = False,
    ) -> Listener:
        return Listener(
            name,
            app,
            metrics=self.metrics,
            request_ids=self.request_ids,
            answer_at_once=answer_at_once,
            # Browsers have no credential, and anybody can invent one.
            line_of=self.addresses.of if is_for_browsers else None,
            is_for_browsers=is_for_browsers,
        )


async def lay_ground(settings: Settings, clock: DatabaseClock, stack: AsyncExitStack) -> Ground:
    metrics = Metrics()
    start_at_zero(metrics)
    registry = _load_callers(settings, clock, metrics)
    stack.callback(registry.close)
    database = await _open_database(settings, stack)
    observe_storage(metrics, database)
    client = await _load_client(settings, clock, metrics, stack)
    trail = AuditTrail(database, clock, metrics, audit_keys(settings.secret_keys))
    sealer = Sealer(local_sealing_keys(settings.secret_keys))
    lookups = TokenLookups(settings.secret_keys)
    known_changes = KnownChanges(clock)
    http = google_http_client()
    stack.push_async_callback(http.aclose)
    discovery = Discovery(settings.discovery_url, http, clock, metrics)
    issuers = _trust_issuers(registry, http, clock, metrics)
    stack.push_async_callback(issuers.aclose)
    refusals = JwtRefusals(clock, metrics)
    workloads = WorkloadIdentities(registry, issuers, refusals)
    limits = CallerLimits(metrics)
    addresses = ClientAddresses(settings.trusted_proxies, clock)
    return Ground(
        settings=settings,
        clock=clock,
        metrics=metrics,
        database=database,
        client=client,
        registry=registry,
        issuers=issuers,
        jwt_refusals=refusals,
        audit=trail,
        failed_revocations=FailedRevocations(),
        gate=Gate(registry, trail, workloads, limits, FailedAttempts(addresses, metrics)),
        limits=limits,
        addresses=addresses,
        sealer=sealer,
        lookups=lookups,
        known_changes=known_changes,
        grants=GrantStore(
            database,
            sealer,
            clock,
            keep_access_tokens=settings.access_tokens == "sealed",
            replica=_replica(settings, stack),
            lookups=lookups,
            known=known_changes,
        ),
        http=http,
        discovery=discovery,
        google=GoogleOAuth(discovery, http, clock, metrics),
        request_ids=RequestIds(),
    )


async def _open_database(settings: Settings, stack: AsyncExitStack) -> Database:
    database = Database(settings.database_url)
    try:
        check_schema(await applied_migrations(settings.database_url))
        await database.open()
    except StorageUnavailable as error:
        raise StartError(f"the database can't be reached: {error}") from error
    except (SchemaError, ValueError) as error:
        raise StartError(str(error)) from error
    stack.push_async_callback(database.close)
    return database


def _replica(settings: Settings, stack: AsyncExitStack) -> Database | None:
    """Connected when it is first needed: it may be away while the primary is there."""
    if settings.database_replica_url is None:
        return None
    replica = Database(settings.database_replica_url, opens_when_used=True)
    stack.push_async_callback(replica.close)
    return replica


async def _load_client(
    settings: Settings, clock: Clock, metrics: Metrics, stack: AsyncExitStack
) -> CurrentClient:
    client = CurrentClient(open_source(settings.secret_source, clock), metrics, clock)
    stack.push_async_callback(client.aclose)
    try:
        await client.load()
    except SourceError as error:
        raise StartError(f"the OAuth client can't be read: {error}") from error
    return client


def _load_callers(settings: Settings, clock: Clock, metrics: Metrics) -> CallerRegistry:
    registry = CallerRegistry(settings.callers_file, settings.scopes, clock, metrics)
    try:
        registry.load()
    except CallersFileError as error:
        heading = f"the callers file {settings.callers_file} can't be used:"
        raise StartError("\n  - ".join([heading, *error.problems])) from error
    return registry


def _trust_issuers(
    registry: CallerRegistry, http: httpx2.AsyncClient, clock: Clock, metrics: Metrics
) -> TrustedIssuers:
    """Those of the callers file, now and as it changes; none of them is asked yet."""
    issuers = TrustedIssuers(IssuerDocuments(http, metrics), clock, metrics)

    def follow() -> None:
        start_callers_at_zero(metrics, registry.callers)
        start_issuers_at_zero(metrics, registry.issuers)
        issuers.follow(registry.issuers)

    registry.on_change = follow
    follow()
    return issuers


def routed(routes: Sequence[BaseRoute], handlers: ExceptionHandlers) -> Starlette:
    app = Starlette(routes=routes, exception_handlers=handlers)
    # A redirect to the path with or without its last slash would be built from the Host header.
    app.router.redirect_slashes = False
    return app
