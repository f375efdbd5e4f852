"""The callers' API: its routes, each with what it depends on, and the warm path in front of it."""

from functools import partial

from starlette.types import ASGIApp

from broker.app.process_context import Ground, routed
from broker.app.public_site import consent_store, hold_first_token, link_tokens, visit_links
from broker.connections.link_routes import connections_link_routes
from broker.connections.visits import Visits
from broker.consent.confirm_routes import ConfirmRoute
from broker.consent.link_routes import LinkRoutes
from broker.consent.records import ConsentRecords
from broker.exchange.clients import ClientAuthentication
from broker.exchange.routes import ExchangeRoute
from broker.exchange.subjects import SubjectTokens
from broker.grants.last_uses import LastUses
from broker.grants.pending.store import PendingConsents
from broker.grants.revocation_outbox import PendingRevocations
from broker.grants_api.revoker import Revoker
from broker.grants_api.routes import connection_routes, shown
from broker.tokens.batch import BatchDispenser
from broker.tokens.batch_routes import BatchRoute
from broker.tokens.cache.fast_path import WarmPath
from broker.tokens.cache.token_cache import HeldTokens
from broker.tokens.counting import RequestLedger
from broker.tokens.dispenser import TokenDispenser
from broker.tokens.pending_hint import UnconfirmedConsents
from broker.tokens.refresh.concurrency import RefreshesByShare
from broker.tokens.refresh.refresher import Refresher, Refreshes
from broker.tokens.routes import TOKEN_ROUTE, token_routes
from broker.web.errors import INTERNAL_HANDLERS


def internal_api(
    ground: Ground,
    held: HeldTokens,
    uses: LastUses,
    refresher: Refresher,
    pending: PendingConsents,
    revoking: Revoker,
) -> ASGIApp:
    """The callers' API, with the warm path in front of it."""
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
    shared = RefreshesByShare(refresher, ground.limits.refreshes)
    dispenser = _dispenser(ground, held, unconfirmed, shared)
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
            links=visit_links(ground),
            audit=ground.audit,
        ),
    ]
    app = routed(routes, INTERNAL_HANDLERS)
    return ground.listener("internal", app, answer_at_once=warm_path.answer)


def revoker_of(ground: Ground, held: HeldTokens) -> Revoker:
    """The one that ends grants for callers and users, and after a failover."""
    return Revoker(
        grants=ground.grants,
        pending=PendingRevocations(ground.database, ground.sealer, ground.clock),
        google=ground.google,
        metrics=ground.metrics,
        failed=ground.failed_revocations,
        clock=ground.clock,
        forget=held.forget,
    )


def _dispenser(
    ground: Ground,
    held: HeldTokens,
    unconfirmed: UnconfirmedConsents,
    refresher: Refreshes,
) -> TokenDispenser:
    return TokenDispenser(
        held=held,
        grants=ground.grants,
        unconfirmed=unconfirmed,
        refresher=refresher,
        limits=ground.limits,
        clock=ground.clock,
    )


def _batch_route(
    ground: Ground,
    held: HeldTokens,
    unconfirmed: UnconfirmedConsents,
    refresher: Refresher,
    ledger: RequestLedger,
) -> BatchRoute:
    """Many tokens in one request."""
    shared = RefreshesByShare(refresher, ground.limits.batch_refreshes)
    dispenser = _dispenser(ground, held, unconfirmed, shared)
    batches = BatchDispenser(
        held=held, grants=ground.grants, dispenser=dispenser, portions=ground.limits.portions
    )
    return BatchRoute(
        gate=ground.gate,
        held=held,
        batches=batches,
        ledger=ledger,
        limits=ground.limits,
        clock=ground.clock,
    )


def _exchange_route(
    ground: Ground, dispenser: TokenDispenser, ledger: RequestLedger
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


def _link_routes(ground: Ground) -> LinkRoutes:
    return LinkRoutes(
        gate=ground.gate,
        store=consent_store(ground),
        links=link_tokens(ground),
        audit=ground.audit,
        clock=ground.clock,
        allowed_scopes=ground.settings.scopes,
        redirect_uris=ground.settings.redirect_uris,
    )


def _confirm_route(
    ground: Ground, held: HeldTokens, uses: LastUses, pending: PendingConsents
) -> ConfirmRoute:
    return ConfirmRoute(
        gate=ground.gate,
        pending=pending,
        records=ConsentRecords(ground.audit, ground.metrics),
        shown=lambda grant: shown(grant, uses),
        on_connected=partial(hold_first_token, held, ground.known_changes),
    )
