"""Per-process context: settings, database, OAuth client, callers and keys, each made once."""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

import httpx2

from broker.app.metric_setup import (
    observe_storage,
    start_at_zero,
    start_callers_at_zero,
    start_issuers_at_zero,
)
from broker.audit.batch_macs import audit_keys
from broker.audit.trail import AuditTrail
from broker.callers.authentication_limits import AuthenticationLimits
from broker.callers.callers_file import CallersFileError
from broker.callers.gate import Gate
from broker.callers.limits import CallerLimits
from broker.callers.model import Caller
from broker.callers.registry import CallerRegistry
from broker.callers.workloads import WorkloadIdentities
from broker.clock import Clock
from broker.crypto.sealing import Sealer, local_sealing_keys
from broker.database.clock import DatabaseClock
from broker.database.database import Database, StorageUnavailable
from broker.database.schema import SchemaError, applied_migrations, check_schema
from broker.google.discovery import Discovery
from broker.google.http import google_http_client
from broker.google.oauth import GoogleOAuth
from broker.grants.fingerprints import TokenFingerprints
from broker.grants.recent_changes import RecentChanges
from broker.grants.store import GrantStore
from broker.issuers.key_set_client import KeySetClient
from broker.issuers.model import Issuer
from broker.issuers.trusted import JwtRefusalLog, TrustedIssuers
from broker.secret_sources import open_source
from broker.secret_sources.current_client import CurrentClient
from broker.secret_sources.source import SourceError
from broker.settings import Settings
from broker.telemetry.failed_revocations import FailedRevocations
from broker.telemetry.metrics import Metrics
from broker.web.addresses import RemoteAddresses
from broker.web.request_ids import RequestIds


class StartError(Exception):
    """The broker can't start. The message says what is wrong and how to fix it."""


@dataclass(frozen=True, slots=True)
class ProcessContext:
    """What all listeners and background jobs share."""

    settings: Settings
    clock: DatabaseClock
    metrics: Metrics
    database: Database
    client: CurrentClient
    registry: CallerRegistry
    issuers: TrustedIssuers
    jwt_refusals: JwtRefusalLog
    audit: AuditTrail
    failed_revocations: FailedRevocations
    gate: Gate
    limits: CallerLimits
    addresses: RemoteAddresses
    sealer: Sealer
    fingerprints: TokenFingerprints
    recent_changes: RecentChanges
    grants: GrantStore
    http: httpx2.AsyncClient
    discovery: Discovery
    google: GoogleOAuth
    request_ids: RequestIds


async def open_process_context(
    settings: Settings, clock: DatabaseClock, stack: AsyncExitStack
) -> ProcessContext:
    """Read the callers file, connect to PostgreSQL and read the OAuth client.

    `stack` closes it all. Raises `StartError` if the broker can't serve without what is missing.
    """
    metrics = Metrics()
    start_at_zero(metrics)
    http = google_http_client()
    stack.push_async_callback(http.aclose)
    issuers = TrustedIssuers(KeySetClient(http, metrics), clock, metrics)
    stack.push_async_callback(issuers.aclose)
    registry = _load_callers(settings, clock, metrics, issuers)
    stack.callback(registry.close)
    database = await _open_database(settings, stack)
    observe_storage(metrics, database)
    client = await _load_client(settings, clock, metrics, stack)
    audit = AuditTrail(database, clock, metrics, audit_keys(settings.secret_keys))
    refusals = JwtRefusalLog(clock, metrics)
    limits = CallerLimits(metrics)
    addresses = RemoteAddresses(settings.trusted_proxies, clock)
    discovery = Discovery(settings.discovery_url, http, clock, metrics)
    sealer = Sealer(local_sealing_keys(settings.secret_keys))
    fingerprints = TokenFingerprints(settings.secret_keys)
    recent_changes = RecentChanges(clock)
    return ProcessContext(
        settings=settings,
        clock=clock,
        metrics=metrics,
        database=database,
        client=client,
        registry=registry,
        issuers=issuers,
        jwt_refusals=refusals,
        audit=audit,
        failed_revocations=FailedRevocations(),
        gate=Gate(
            registry,
            audit,
            WorkloadIdentities(registry, issuers, refusals),
            limits,
            AuthenticationLimits(addresses, metrics),
        ),
        limits=limits,
        addresses=addresses,
        sealer=sealer,
        fingerprints=fingerprints,
        recent_changes=recent_changes,
        grants=GrantStore(
            database,
            sealer,
            clock,
            keep_access_tokens=settings.access_tokens == "sealed",
            read_replica=_read_replica(settings, stack),
            fingerprints=fingerprints,
            recent_changes=recent_changes,
        ),
        http=http,
        discovery=discovery,
        google=GoogleOAuth(discovery, http, clock, metrics),
        request_ids=RequestIds(),
    )


def _load_callers(
    settings: Settings, clock: Clock, metrics: Metrics, issuers: TrustedIssuers
) -> CallerRegistry:
    def on_change(callers: Sequence[Caller], trusted: Sequence[Issuer]) -> None:
        start_callers_at_zero(metrics, callers)
        start_issuers_at_zero(metrics, trusted)
        issuers.configure(trusted)

    registry = CallerRegistry(
        settings.callers_file, settings.scopes, clock, metrics, on_change=on_change
    )
    try:
        registry.load()
    except CallersFileError as error:
        heading = f"the callers file {settings.callers_file} is invalid:"
        raise StartError("\n  - ".join([heading, *error.problems])) from error
    return registry


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


def _read_replica(settings: Settings, stack: AsyncExitStack) -> Database | None:
    """Connects at the first use: the read replica may be down while the primary is up."""
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
