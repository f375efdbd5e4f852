"""Wires everything: settings in, three listeners out. The only room that sees all the others.

Each part is handed only what it needs. Nothing is served before the schema, the OAuth client and
the callers were found good; once serving, no part's absence ends the process.
"""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from uuid import UUID

import httpx2
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from broker import __version__
from broker.audit import retention
from broker.audit.keys import audit_keys
from broker.audit.retention import AuditRetention
from broker.callers.attempts import FailedAttempts
from broker.callers.clients_file import ClientsFileError
from broker.callers.gate import Gate
from broker.callers.limits import NOBODY, CallerLimits
from broker.callers.registry import CallerRegistry
from broker.callers.workloads import WorkloadIdentities
from broker.clock import Clock, SteadyClock
from broker.connections import revoker
from broker.connections.doorway import Doorway
from broker.connections.link_routes import connections_link_routes
from broker.connections.page_routes import ConnectionsPage
from broker.connections.pages import TranslatedConnectionsPages
from broker.connections.reconnection import Reconnection
from broker.connections.revoker import Revoker
from broker.connections.routes import connection_routes, shown
from broker.connections.visit_links import PAGE_PATH, VisitLinks
from broker.connections.visitors import VisitorCookies
from broker.connections.visits import Visits
from broker.consent.browser_routes import public_handlers, public_routes
from broker.consent.browsers import BrowserCookies
from broker.consent.confirm_routes import ConfirmRoute
from broker.consent.departures import Departures
from broker.consent.endings import TripEndings
from broker.consent.exchange import CodeExchange
from broker.consent.flow import ConsentFlow
from broker.consent.link_routes import LinkRoutes
from broker.consent.links import LinkTokens
from broker.consent.pages import TranslatedPages
from broker.consent.policies import LinkPolicies
from broker.consent.questions import Questions
from broker.consent.records import ConsentRecords
from broker.consent.signing import Signer
from broker.consent.store import ConsentStore
from broker.consent.transactions import Transactions
from broker.database.clock import DatabaseClock
from broker.database.database import Database, StorageUnavailable
from broker.database.schema import SchemaError, applied_migrations, check_schema
from broker.events.effects import SecurityEffects
from broker.events.inbox import SecurityEventInbox
from broker.events.routes import EVENTS_PATH, event_routes
from broker.exchange.clients import ClientAuthentication
from broker.exchange.routes import ExchangeRoute
from broker.exchange.subjects import SubjectTokens
from broker.google.discovery import Discovery
from broker.google.errors import GoogleUnavailable
from broker.google.http import google_http_client
from broker.google.id_tokens import IdTokenVerifier
from broker.google.oauth import GoogleOAuth
from broker.google.security_event_tokens import SecurityEventVerifier
from broker.grants import changes, last_uses
from broker.grants.account_changes import AccountChanges
from broker.grants.changes import GrantChanges
from broker.grants.last_uses import LastUses
from broker.grants.leases import RefreshLeases
from broker.grants.lookups import LookupFill, TokenLookups
from broker.grants.model import AccessToken, Grant, scope_set
from broker.grants.pending import PendingConsents
from broker.grants.revocations import PendingRevocations
from broker.grants.sealing import Sealer, local_sealing_keys
from broker.grants.store import GrantStore
from broker.issuers import trusted as trusted_issuers
from broker.issuers.documents import IssuerDocuments
from broker.issuers.refusals import JwtRefusals
from broker.issuers.trusted import TrustedIssuers
from broker.ops import upkeep
from broker.ops.health import HealthCheck, Part
from broker.ops.routes import ops_routes
from broker.ops.upkeep import Upkeep
from broker.pages.forms import origin_of
from broker.pages.static_files import STATIC_PATH
from broker.secret_sources import open_source
from broker.secret_sources.current import CurrentClient
from broker.secret_sources.source import SourceError
from broker.settings import Listen, Settings
from broker.telemetry import audit
from broker.telemetry.audit import AuditTrail
from broker.telemetry.metrics import Metrics
from broker.tokens import ahead as refresh_ahead
from broker.tokens import unsaved as unsaved_refreshes
from broker.tokens.ahead import RefreshAhead
from broker.tokens.batch import BatchDispenser, RefreshesInTurn
from broker.tokens.batch_routes import BatchRoute
from broker.tokens.counting import RequestLedger
from broker.tokens.dispenser import TokenDispenser
from broker.tokens.held import HeldTokens, Watch
from broker.tokens.held_token import HeldToken
from broker.tokens.refresher import Refresher
from broker.tokens.routes import TOKEN_ROUTE, token_routes
from broker.tokens.shares import RefreshesByShare
from broker.tokens.unconfirmed import UnconfirmedConsents
from broker.tokens.unsaved import UnsavedRefreshes
from broker.tokens.wakeups import Wakeups
from broker.tokens.warm_path import WarmPath
from broker.web.addresses import ClientAddresses
from broker.web.at_once import AnswerAtOnce
from broker.web.background import Background
from broker.web.errors import INTERNAL_HANDLERS, ExceptionHandlers
from broker.web.listener import Listener
from broker.web.problems import NO_STORE
from broker.web.public_limits import PublicLimits
from broker.web.request_ids import RequestIds
from broker.web.server import Listeners, bind
from broker.webhooks import sender as webhook_sender
from broker.webhooks.delivery import Delivery, webhook_http_client
from broker.webhooks.messages import MessageSigner
from broker.webhooks.outbox import WebhookOutbox
from broker.webhooks.sender import WebhookSender
from broker.webhooks.unwanted import UnwantedEvents

logger = logging.getLogger(__name__)

LEFT_OUT_OF_THE_START = ("authlib.integrations.httpx_client", "joserfc.jwt")
"""Whoever uses them imports them within the function that does."""
_REST_SECONDS = 0.5
_GOOGLE_SOON_SECONDS = 1.0
"""How long a page waits for what it can do without."""


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
    """Serve until `stop` is set. Raises `StartError`.

    The libraries that only talking to Google takes are left out of the start, of which they would
    be a quarter, and are imported in a thread once tokens can be handed out.
    """
    listens = (settings.public_listen, settings.internal_listen, settings.ops_listen)
    for warning in settings.warnings:
        logger.warning(warning)
    async with AsyncExitStack() as stack:
        sockets = [stack.enter_context(_bind(listen)) for listen in listens]
        broker = await stack.enter_async_context(assembled(settings))
        apps = (broker.public, broker.internal, broker.ops)
        listeners = Listeners(list(zip(apps, sockets, strict=True)))
        await listeners.start()
        stack.push_async_callback(_ended, asyncio.create_task(_import_the_rest()))
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


async def _import_the_rest() -> None:
    """A moment later, so that it is not in the way of who waited for the start."""
    await asyncio.sleep(_REST_SECONDS)
    for name in LEFT_OUT_OF_THE_START:
        await asyncio.to_thread(import_module, name)


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait((task,))


def _bind(listen: Listen) -> socket.socket:
    try:
        return bind(listen)
    except OSError as error:
        raise StartError(f"can't listen on {listen}: {error.strerror}") from error


@asynccontextmanager
async def assembled(  # noqa: PLR0915  (wired once, from top to bottom)
    settings: Settings, clock: Clock | None = None
) -> AsyncIterator[Broker]:
    """The broker, ready to serve, with its background jobs running. Raises `StartError`."""
    async with AsyncExitStack() as stack:
        own_clock = clock or SteadyClock()
        ground = await _lay_ground(settings, DatabaseClock(own_clock), stack)
        held = HeldTokens()
        wakeups = Wakeups()
        uses = LastUses(ground.grants, ground.clock)
        stack.push_async_callback(_flush, ground.audit, uses)
        webhooks = _webhooks(ground, stack)

        def on_change(user_id: str, grant_id: UUID, version: int) -> None:
            held.changed(user_id, grant_id, version)
            if isinstance(webhooks, WebhookSender):
                webhooks.due.set()

        changing = GrantChanges(
            ground.database,
            ground.clock,
            on_change=on_change,
            on_refreshed=wakeups.wake,
        )
        ground.grants.is_outdated = changing.is_outdated
        # Before anything is served: the clock that all replicas share, and where the changes begin.
        await changing.look()
        unsaved = UnsavedRefreshes(ground.grants)
        refresher = Refresher(
            grants=ground.grants,
            leases=RefreshLeases(ground.database, ground.clock),
            google=ground.google,
            client=ground.client,
            audit=ground.audit,
            metrics=ground.metrics,
            clock=ground.clock,
            wakeups=wakeups,
            unsaved=unsaved,
            held=held,
        )
        stack.push_async_callback(refresher.aclose)
        ahead = RefreshAhead(
            held=held, grants=ground.grants, refresher=refresher, clock=ground.clock
        )
        held.on_held, held.on_gone = ahead.plan, ahead.drop
        stack.push_async_callback(ahead.aclose)
        pending = PendingConsents(
            ground.database,
            ground.sealer,
            ground.clock,
            ground.grants,
            keep_access_tokens=settings.access_tokens == "sealed",
        )
        internal, revoking = _internal(ground, held, uses, refresher, pending)
        flow = _consent_flow(ground, held, pending)
        visits = Visits(ground.database, ground.clock)
        page = _connections_page(ground, visits, uses, revoking)
        inbox = _inbox(ground, held)
        public = _public(ground, flow, page, inbox)
        health = HealthCheck(
            [
                Part("database", ground.database.ping),
                Part("secret_source", ground.client.ping),
                Part("google", ground.discovery.ping),
                Part("clients_file", ground.registry.ping),
                Part("issuers", ground.issuers.ping),
            ],
            holds_tokens=lambda: len(held) > 0,
        )
        stack.push_async_callback(health.aclose)
        ops = _routed(ops_routes(ground.metrics.registry, health), INTERNAL_HANDLERS)
        background = Background()
        stack.push_async_callback(background.stop)
        ending = AuditRetention(
            database=ground.database,
            clocks=(ground.clock, own_clock),
            metrics=ground.metrics,
            keys=audit_keys(settings.secret_keys),
            keep=settings.audit_retention,
        )
        background.every(retention.EVERY_SECONDS, "audit retention", ending.purge)
        filling = LookupFill(ground.database, ground.sealer, ground.lookups)
        cleaning = Upkeep(
            grants=ground.grants,
            metrics=ground.metrics,
            purges=[flow.purge, visits.purge, inbox.purge, filling.round, webhooks.tidy],
        )
        background.every(audit.FLUSH_SECONDS, "audit", ground.audit.flush, wake=ground.audit.due)
        background.every(last_uses.FLUSH_SECONDS, "last uses", uses.flush)
        background.every(
            revoker.POLL_SECONDS, "revocations", revoking.tell_all_due, wake=revoking.due
        )
        if isinstance(webhooks, WebhookSender):
            background.every(
                webhook_sender.POLL_SECONDS, "webhooks", webhooks.send_due, wake=webhooks.due
            )
        background.every(upkeep.EVERY_SECONDS, "upkeep", cleaning.round)
        background.every(changes.LOOK_SECONDS, "grant changes", changing.look)
        background.every(refresh_ahead.LOOK_SECONDS, "refresh ahead", ahead.round)
        background.every(trusted_issuers.LOOK_SECONDS, "issuers", ground.issuers.round)
        background.every(unsaved_refreshes.FLUSH_SECONDS, "unsaved refreshes", unsaved.flush)
        background.watch("notices", changing.listen)
        background.watch("oauth client", ground.client.watch)
        background.watch("clients file", ground.registry.watch)
        yield Broker(public, internal, ground.listener("ops", ops), health)


@dataclass(frozen=True, slots=True)
class _Ground:
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
    gate: Gate
    limits: CallerLimits
    addresses: ClientAddresses
    sealer: Sealer
    lookups: TokenLookups
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
        self, name: str, app: ASGIApp, *, answer_at_once: AnswerAtOnce | None = None
    ) -> Listener:
        return Listener(
            name,
            app,
            metrics=self.metrics,
            request_ids=self.request_ids,
            answer_at_once=answer_at_once,
        )


async def _lay_ground(settings: Settings, clock: DatabaseClock, stack: AsyncExitStack) -> _Ground:
    metrics = Metrics()
    registry = _load_callers(settings, clock, metrics)
    stack.callback(registry.close)
    database = await _open_database(settings, stack)
    client = await _load_client(settings, clock, metrics, stack)
    trail = AuditTrail(database, clock, metrics, audit_keys(settings.secret_keys))
    sealer = Sealer(local_sealing_keys(settings.secret_keys))
    lookups = TokenLookups(settings.secret_keys)
    http = google_http_client()
    stack.push_async_callback(http.aclose)
    discovery = Discovery(settings.discovery_url, http, clock, metrics)
    issuers = _trust_issuers(registry, http, clock, metrics)
    stack.push_async_callback(issuers.aclose)
    refusals = JwtRefusals(clock, metrics)
    workloads = WorkloadIdentities(registry, issuers, refusals)
    limits = CallerLimits(metrics)
    addresses = ClientAddresses(settings.trusted_proxies, clock)
    return _Ground(
        settings=settings,
        clock=clock,
        metrics=metrics,
        database=database,
        client=client,
        registry=registry,
        issuers=issuers,
        jwt_refusals=refusals,
        audit=trail,
        gate=Gate(registry, trail, workloads, limits, FailedAttempts(addresses, metrics)),
        limits=limits,
        addresses=addresses,
        sealer=sealer,
        lookups=lookups,
        grants=GrantStore(
            database,
            sealer,
            clock,
            keep_access_tokens=settings.access_tokens == "sealed",
            replica=_replica(settings, stack),
            lookups=lookups,
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
    registry = CallerRegistry(settings.clients_file, settings.scopes, clock, metrics)
    try:
        registry.load()
    except ClientsFileError as error:
        heading = f"the clients file {settings.clients_file} can't be used:"
        raise StartError("\n  - ".join([heading, *error.problems])) from error
    return registry


def _trust_issuers(
    registry: CallerRegistry, http: httpx2.AsyncClient, clock: Clock, metrics: Metrics
) -> TrustedIssuers:
    """Those of the clients file, now and as it changes; none of them is asked yet."""
    issuers = TrustedIssuers(IssuerDocuments(http, metrics), clock, metrics)

    def follow() -> None:
        issuers.follow(registry.issuers)

    registry.on_change = follow
    follow()
    return issuers


def _internal(
    ground: _Ground,
    held: HeldTokens,
    uses: LastUses,
    refresher: Refresher,
    pending: PendingConsents,
) -> tuple[ASGIApp, Revoker]:
    """The callers' API, with the warm path in front of it."""
    revoking = Revoker(
        grants=ground.grants,
        pending=PendingRevocations(ground.database, ground.sealer, ground.clock),
        google=ground.google,
        metrics=ground.metrics,
        clock=ground.clock,
        forget=held.forget,
    )
    ledger = RequestLedger(metrics=ground.metrics, audit=ground.audit, last_uses=uses)
    warm_path = WarmPath(
        registry=ground.registry,
        held=held,
        ledger=ledger,
        metrics=ground.metrics,
        clock=ground.clock,
        request_ids=ground.request_ids,
        route=TOKEN_ROUTE,
    )
    unconfirmed = UnconfirmedConsents(pending)
    dispenser = TokenDispenser(
        held=held,
        grants=ground.grants,
        unconfirmed=unconfirmed,
        refresher=RefreshesByShare(refresher, ground.limits.refreshes),
        limits=ground.limits,
        clock=ground.clock,
    )
    routes = [
        *token_routes(
            gate=ground.gate,
            dispenser=dispenser,
            ledger=ledger,
            warm_path=warm_path,
            clock=ground.clock,
        ),
        *_batch_route(ground, held, unconfirmed, refresher, ledger).routes(),
        *connection_routes(
            gate=ground.gate,
            grants=ground.grants,
            pending=pending,
            revoker=revoking,
            last_uses=uses,
            audit=ground.audit,
        ),
        *_link_routes(ground).routes(),
        *_confirm_route(ground, held, uses, pending).routes(),
        *_exchange_route(ground, dispenser, ledger).routes(),
        *connections_link_routes(
            gate=ground.gate,
            visits=Visits(ground.database, ground.clock),
            links=_visit_links(ground),
            audit=ground.audit,
        ),
    ]
    app = _routed(routes, INTERNAL_HANDLERS)
    return ground.listener("internal", app, answer_at_once=warm_path.answer), revoking


def _batch_route(
    ground: _Ground,
    held: HeldTokens,
    unconfirmed: UnconfirmedConsents,
    refresher: Refresher,
    ledger: RequestLedger,
) -> BatchRoute:
    """Many tokens in one request."""
    dispenser = TokenDispenser(
        held=held,
        grants=ground.grants,
        unconfirmed=unconfirmed,
        refresher=RefreshesByShare(RefreshesInTurn(refresher), ground.limits.refreshes),
        limits=ground.limits,
        clock=ground.clock,
    )
    batches = BatchDispenser(held=held, grants=ground.grants, dispenser=dispenser)
    return BatchRoute(
        gate=ground.gate,
        held=held,
        batches=batches,
        ledger=ledger,
        limits=ground.limits,
        clock=ground.clock,
    )


def _exchange_route(
    ground: _Ground, dispenser: TokenDispenser, ledger: RequestLedger
) -> ExchangeRoute:
    """Tokens against users' own JWTs."""
    return ExchangeRoute(
        gate=ground.gate,
        clients=ClientAuthentication(gate=ground.gate, registry=ground.registry),
        subjects=SubjectTokens(ground.issuers, ground.registry),
        dispenser=dispenser,
        ledger=ledger,
        refusals=ground.jwt_refusals,
        clock=ground.clock,
    )


def _link_routes(ground: _Ground) -> LinkRoutes:
    return LinkRoutes(
        gate=ground.gate,
        store=ConsentStore(ground.database, ground.sealer, ground.clock),
        links=LinkTokens(Signer(ground.settings.secret_keys, "links")),
        audit=ground.audit,
        clock=ground.clock,
        allowed_scopes=ground.settings.scopes,
        redirect_uris=ground.settings.redirect_uris,
    )


def _webhooks(ground: _Ground, stack: AsyncExitStack) -> WebhookSender | UnwantedEvents:
    """Who tells the product, or, with nobody to tell, who keeps the outbox empty."""
    outbox = WebhookOutbox(ground.database, ground.clock)
    receiver = ground.settings.webhooks
    if receiver is None:
        return UnwantedEvents(outbox)
    http = webhook_http_client()
    stack.push_async_callback(http.aclose)
    sender = WebhookSender(
        outbox=outbox,
        delivery=Delivery(receiver.url, http),
        signer=MessageSigner(receiver.secrets),
        audit=ground.audit,
        metrics=ground.metrics,
        clock=ground.clock,
    )
    stack.push_async_callback(sender.aclose)
    return sender


def _confirm_route(
    ground: _Ground, held: HeldTokens, uses: LastUses, pending: PendingConsents
) -> ConfirmRoute:
    return ConfirmRoute(
        gate=ground.gate,
        pending=pending,
        records=ConsentRecords(ground.audit, ground.metrics),
        shown=lambda grant: shown(grant, uses),
        on_connected=partial(_hold_first_token, held),
    )


def _inbox(ground: _Ground, held: HeldTokens) -> SecurityEventInbox:
    """What Google's security events do."""
    return SecurityEventInbox(
        database=ground.database,
        effects=SecurityEffects(AccountChanges(ground.lookups, ground.clock), ground.clock),
        audit=ground.audit,
        metrics=ground.metrics,
        clock=ground.clock,
        client_id=lambda: ground.client.client.client_id,
        forget=held.forget,
    )


def _hold_first_token(
    held: HeldTokens, user_id: str, grant: Grant, token: AccessToken | None
) -> None:
    held.forget(user_id)
    if token is not None:
        held.keep(user_id, scope_set(grant.scopes), HeldToken(grant, token), Watch())


def _consent_flow(ground: _Ground, held: HeldTokens, pending: PendingConsents) -> ConsentFlow:
    keys, records = ground.settings.secret_keys, ConsentRecords(ground.audit, ground.metrics)
    store = ConsentStore(ground.database, ground.sealer, ground.clock)
    links = LinkTokens(Signer(keys, "links"))
    browsers = BrowserCookies(Signer(keys, "browser cookie"))
    transactions = Transactions(Signer(keys, "state"))
    questions = Questions(ground.grants, ground.client, ground.settings.scopes)
    own_page = origin_of(ground.settings.redirect_uris[0]) + PAGE_PATH
    policies = LinkPolicies(ground.registry.named, own_pages=[own_page])
    endings = TripEndings(records, links, ground.clock)
    departures = Departures(
        store=store,
        links=links,
        browsers=browsers,
        proofs=Signer(keys, "page before"),
        transactions=transactions,
        questions=questions,
        policies=policies,
        oauth=ground.google,
        discovery=ground.discovery,
        current=ground.client,
        endings=endings,
        clock=ground.clock,
    )
    id_tokens = IdTokenVerifier(ground.discovery, ground.http, ground.clock, ground.metrics)
    return ConsentFlow(
        departures=departures,
        store=store,
        browsers=browsers,
        transactions=transactions,
        questions=questions,
        policies=policies,
        grants=ground.grants,
        pending=pending,
        discovery=ground.discovery,
        exchange=CodeExchange(ground.google, id_tokens, ground.client, ground.clock),
        endings=endings,
        records=records,
        on_connected=partial(_hold_first_token, held),
    )


def _visit_links(ground: _Ground) -> VisitLinks:
    signer = Signer(ground.settings.secret_keys, "connections links")
    return VisitLinks(signer, origin_of(ground.settings.redirect_uris[0]))


def _connections_page(
    ground: _Ground, visits: Visits, uses: LastUses, revoking: Revoker
) -> ConnectionsPage:
    """The user's own page."""
    keys, redirect_uris = ground.settings.secret_keys, ground.settings.redirect_uris
    origin = origin_of(redirect_uris[0])
    pages = TranslatedConnectionsPages(redirect_uris)
    cookies = VisitorCookies(
        visitors=Signer(keys, "connections visitors"),
        forms=Signer(keys, "connections forms"),
        notices=Signer(keys, "connections notices"),
        is_https=origin.startswith("https:"),
    )
    doorway = Doorway(
        pages=pages,
        visits=visits,
        links=_visit_links(ground),
        cookies=cookies,
        registry=ground.registry,
        audit=ground.audit,
        clock=ground.clock,
        own_origins=[origin_of(uri) for uri in redirect_uris],
    )
    return ConnectionsPage(
        doorway=doorway,
        pages=pages,
        cookies=cookies,
        grants=ground.grants,
        last_uses=uses,
        revoker=revoking,
        reconnection=Reconnection(
            registry=ground.registry,
            store=ConsentStore(ground.database, ground.sealer, ground.clock),
            links=LinkTokens(Signer(keys, "links")),
            audit=ground.audit,
            clock=ground.clock,
            allowed_scopes=ground.settings.scopes,
            redirect_uri=redirect_uris[0],
            return_to=origin + PAGE_PATH,
        ),
        clock=ground.clock,
        way_to_google=ground.way_to_google,
    )


def _public(
    ground: _Ground, flow: ConsentFlow, page: ConnectionsPage, inbox: SecurityEventInbox
) -> ASGIApp:
    """The browser's side, and where Google tells of security events."""
    pages = TranslatedPages(ground.settings.redirect_uris)
    own_origins = [origin_of(uri) for uri in ground.settings.redirect_uris]
    events = SecurityEventVerifier(
        ground.settings.discovery_url,
        ground.http,
        ground.clock,
        ground.metrics,
        is_ours=inbox.is_ours,
    )
    routes = [
        *public_routes(flow, pages, own_origins),
        *page.routes(),
        *event_routes(events, inbox),
    ]
    app = PublicLimits(
        _routed(routes, public_handlers(pages)),
        addresses=ground.addresses,
        refused=ground.metrics.rate_limited.labels(NOBODY, "address"),
        refuse=lambda request, seconds: _too_many(pages, request, seconds),
        free=[STATIC_PATH + "/"],
    )
    return ground.listener("public", app)


def _too_many(pages: TranslatedPages, request: Request, seconds: int) -> Response:
    headers = {"Retry-After": str(seconds)}
    if request.scope["path"] == EVENTS_PATH:
        return Response(status_code=429, headers={**NO_STORE, **headers})
    return pages.for_reader(request).error_page(
        429, request_id=request.state.request_id, headers=headers
    )


def _routed(routes: Sequence[BaseRoute], handlers: ExceptionHandlers) -> Starlette:
    app = Starlette(routes=routes, exception_handlers=handlers)
    # A redirect to the path with or without its last slash would be built from the Host header.
    app.router.redirect_slashes = False
    return app


async def _flush(trail: AuditTrail, uses: LastUses) -> None:
    """Write what is still in memory before the connections close."""
    try:
        await trail.flush()
        await uses.flush()
    except StorageUnavailable:
        logger.warning("the last audit records could not be written: storage is away")
    trail.chain.log_head()
