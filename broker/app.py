"""Wires everything: settings in, three listeners out. The only room that sees all the others.

Each part is handed only what it needs. Nothing is served before the schema, the OAuth client and
the callers were found good; once serving, no part's absence ends the process.
"""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.types import ASGIApp

from broker import __version__
from broker.callers.clients_file import ClientsFileError
from broker.callers.gate import Gate
from broker.callers.registry import CallerRegistry
from broker.clock import Clock, SystemClock
from broker.connections.revoker import Revoker
from broker.connections.routes import connection_routes
from broker.database.database import Database, StorageUnavailable
from broker.database.schema import SchemaError, applied_migrations, check_schema
from broker.google.discovery import Discovery
from broker.google.http import google_http_client
from broker.google.oauth import GoogleOAuth
from broker.grants.last_uses import LastUses
from broker.grants.revocations import PendingRevocations
from broker.grants.sealing import Sealer, local_sealing_keys
from broker.grants.store import GrantStore
from broker.ops.health import HealthCheck, Part
from broker.ops.routes import ops_routes
from broker.ops.upkeep import Upkeep
from broker.secret_sources import open_source
from broker.secret_sources.current import CurrentClient
from broker.secret_sources.source import SourceError
from broker.settings import Listen, Settings
from broker.telemetry.audit import AuditTrail
from broker.telemetry.metrics import Metrics
from broker.tokens.counting import RequestLedger
from broker.tokens.dispenser import TokenDispenser
from broker.tokens.held import HeldTokens
from broker.tokens.refresher import Refresher
from broker.tokens.routes import TOKEN_ROUTE, token_routes
from broker.tokens.warm_path import WarmPath
from broker.web.background import Background
from broker.web.errors import INTERNAL_HANDLERS
from broker.web.listener import Listener
from broker.web.request_ids import RequestIds
from broker.web.server import Listeners, bind

logger = logging.getLogger(__name__)


class StartError(Exception):
    """The broker can't start; the message says what is wrong and what to do."""


@dataclass(frozen=True, slots=True)
class Broker:
    """The assembled broker: one ASGI application a listener, and how it is."""

    public: ASGIApp
    internal: ASGIApp
    ops: ASGIApp
    health: HealthCheck


async def serve_until(stop: asyncio.Event, settings: Settings) -> None:
    """Serve until `stop` is set. Raises `StartError`."""
    listens = (settings.public_listen, settings.internal_listen, settings.ops_listen)
    sockets = [_bind(listen) for listen in listens]
    for warning in settings.warnings:
        logger.warning(warning)
    async with assembled(settings) as broker:
        apps = (broker.public, broker.internal, broker.ops)
        listeners = Listeners(list(zip(apps, sockets, strict=True)))
        await listeners.start()
        logger.info(
            "serving",
            extra={
                "version": __version__,
                "public": str(listens[0]),
                "internal": str(listens[1]),
                "ops": str(listens[2]),
            },
        )
        await stop.wait()
        logger.info("stopping")
        broker.health.is_draining = True
        await listeners.stop()
    logger.info("stopped")


def _bind(listen: Listen) -> socket.socket:
    try:
        return bind(listen)
    except OSError as error:
        raise StartError(f"can't listen on {listen}: {error.strerror}") from error


@asynccontextmanager
async def assembled(settings: Settings, clock: Clock | None = None) -> AsyncIterator[Broker]:
    """The broker, ready to serve, with its background jobs running. Raises `StartError`."""
    clock = clock or SystemClock()
    metrics = Metrics()
    async with AsyncExitStack() as stack:
        database = await _open_database(settings, stack)
        client = await _load_client(settings, clock, metrics, stack)
        registry = _load_callers(settings, clock, metrics)
        yield await _assemble(settings, clock, metrics, database, client, registry, stack)


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
    registry = CallerRegistry(settings.clients_file, settings.scopes, clock, metrics)
    try:
        registry.load()
    except ClientsFileError as error:
        raise StartError(str(error)) from error
    return registry


async def _assemble(
    settings: Settings,
    clock: Clock,
    metrics: Metrics,
    database: Database,
    client: CurrentClient,
    registry: CallerRegistry,
    stack: AsyncExitStack,
) -> Broker:
    sealer = Sealer(local_sealing_keys(settings.secret_keys))
    keep_access_tokens = settings.access_tokens == "sealed"
    grants = GrantStore(database, sealer, clock, keep_access_tokens=keep_access_tokens)
    pending = PendingRevocations(database, sealer, clock)
    audit = AuditTrail(database, clock, metrics)
    last_uses = LastUses(grants, clock)

    http = google_http_client()
    stack.push_async_callback(http.aclose)
    discovery = Discovery(settings.discovery_url, http, clock, metrics)
    google = GoogleOAuth(discovery, http, clock, metrics)

    held = HeldTokens()
    refresher = Refresher(
        grants=grants, google=google, client=client, audit=audit, metrics=metrics, clock=clock
    )
    dispenser = TokenDispenser(held=held, grants=grants, refresher=refresher, clock=clock)
    revoker = Revoker(
        grants=grants,
        pending=pending,
        google=google,
        metrics=metrics,
        clock=clock,
        forget=held.forget,
    )

    request_ids = RequestIds()
    gate = Gate(registry, audit)
    ledger = RequestLedger(metrics=metrics, audit=audit, last_uses=last_uses)
    warm_path = WarmPath(
        registry=registry,
        ledger=ledger,
        metrics=metrics,
        clock=clock,
        request_ids=request_ids,
        route=TOKEN_ROUTE,
    )
    internal = Starlette(
        routes=[
            *token_routes(
                gate=gate, dispenser=dispenser, ledger=ledger, warm_path=warm_path, clock=clock
            ),
            *connection_routes(
                gate=gate, grants=grants, revoker=revoker, last_uses=last_uses, audit=audit
            ),
        ],
        exception_handlers=INTERNAL_HANDLERS,
    )
    health = HealthCheck(
        [
            Part("database", database.ping),
            Part("secret_source", client.ping),
            Part("google", discovery.ping),
            Part("clients_file", registry.ping),
        ],
        holds_tokens=lambda: len(held) > 0,
    )
    ops = Starlette(
        routes=ops_routes(metrics.registry, health), exception_handlers=INTERNAL_HANDLERS
    )

    background = Background()
    stack.push_async_callback(_flush, audit, last_uses)
    stack.push_async_callback(refresher.aclose)
    stack.push_async_callback(background.stop)
    upkeep = Upkeep(grants=grants, metrics=metrics)
    background.start("audit", audit.run)
    background.start("last uses", last_uses.run)
    background.start("revocations", revoker.run)
    background.start("oauth client", client.watch)
    background.start("clients file", registry.watch)
    background.start("upkeep", upkeep.run)

    def listener(name: str, app: ASGIApp) -> Listener:
        return Listener(name, app, metrics=metrics, request_ids=request_ids)

    return Broker(
        public=listener("public", Starlette()),
        internal=warm_path.before(listener("internal", internal)),
        ops=listener("ops", ops),
        health=health,
    )


async def _flush(audit: AuditTrail, last_uses: LastUses) -> None:
    """Write what is still in memory before the connections close."""
    try:
        await audit.flush()
        await last_uses.flush()
    except StorageUnavailable:
        logger.warning("the last audit records could not be written: storage is away")
