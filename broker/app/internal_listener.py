"""The internal listener: the callers' API, with the token cache's fast path in front of it."""

from collections.abc import Sequence

from starlette.routing import BaseRoute

from broker.app.grant_service import GrantService
from broker.app.listener_app import listener_app, routed_app
from broker.app.process_context import ProcessContext
from broker.app.token_service import TokenService
from broker.callers.answers import REFUSAL_HANDLERS
from broker.connections.page_link_routes import CreatePageLinkRoute
from broker.consent.link_api import ConfirmLinkRoute, CreateLinkRoute
from broker.exchange.clients import ClientAuthentication
from broker.exchange.routes import ExchangeRoute
from broker.exchange.subjects import SubjectTokens
from broker.grants_api.grant_routes import GrantRoutes
from broker.server.listener import Listener
from broker.tokens.batch import BatchDispenser
from broker.tokens.dispenser import TokenDispenser
from broker.tokens.fast_path import TokenFastPath
from broker.tokens.pending_hints import PendingConsentHints
from broker.tokens.refresh.refresher import BoundedRefreshes, Refreshes
from broker.tokens.request_ledger import RequestLedger
from broker.tokens.routes import TOKEN_ROUTE, BatchRoute, token_routes
from broker.web.errors import INTERNAL_HANDLERS


def internal_listener(
    context: ProcessContext, tokens: TokenService, grants: GrantService
) -> Listener:
    """Return the callers' API."""
    ledger = RequestLedger(metrics=context.metrics, audit=context.audit, last_uses=tokens.last_uses)
    fast_path = TokenFastPath(
        registry=context.registry,
        cache=tokens.cache,
        ledger=ledger,
        metrics=context.metrics,
        clock=context.clock,
        request_ids=context.request_ids,
        route=TOKEN_ROUTE,
    )
    pending = PendingConsentHints(grants.pending)
    dispenser = _dispenser(
        context, tokens, pending, BoundedRefreshes(tokens.refresher, context.limits.refreshes)
    )
    routes = [
        *token_routes(gate=context.gate, dispenser=dispenser, ledger=ledger, clock=context.clock),
        *_batch_route(context, tokens, pending, ledger).routes(),
        *_exchange_route(context, dispenser, ledger).routes(),
        *_grant_routes(context, grants),
        *_link_routes(context, tokens, grants),
    ]
    app = routed_app(routes, {**INTERNAL_HANDLERS, **REFUSAL_HANDLERS})
    return listener_app(context, "internal", app, fast_path=fast_path.answer)


def _dispenser(
    context: ProcessContext,
    tokens: TokenService,
    pending: PendingConsentHints,
    refresher: Refreshes,
) -> TokenDispenser:
    return TokenDispenser(
        cache=tokens.cache,
        grants=context.grants,
        pending=pending,
        refresher=refresher,
        limits=context.limits,
        clock=context.clock,
    )


def _batch_route(
    context: ProcessContext,
    tokens: TokenService,
    pending: PendingConsentHints,
    ledger: RequestLedger,
) -> BatchRoute:
    refreshes = BoundedRefreshes(tokens.refresher, context.limits.batch_refreshes)
    batches = BatchDispenser(
        cache=tokens.cache,
        grants=context.grants,
        dispenser=_dispenser(context, tokens, pending, refreshes),
        portions=context.limits.portions,
    )
    return BatchRoute(
        gate=context.gate,
        cache=tokens.cache,
        batches=batches,
        ledger=ledger,
        limits=context.limits,
        clock=context.clock,
    )


def _exchange_route(
    context: ProcessContext, dispenser: TokenDispenser, ledger: RequestLedger
) -> ExchangeRoute:
    return ExchangeRoute(
        gate=context.gate,
        clients=ClientAuthentication(gate=context.gate, registry=context.registry),
        subjects=SubjectTokens(context.issuers, context.registry),
        dispenser=dispenser,
        ledger=ledger,
        refusals=context.jwt_refusals,
        clock=context.clock,
    )


def _grant_routes(context: ProcessContext, grants: GrantService) -> Sequence[BaseRoute]:
    routes = GrantRoutes(
        gate=context.gate,
        grants=grants.user_grants,
        revoker=grants.revoker,
        audit=context.audit,
    )
    return routes.routes()


def _link_routes(
    context: ProcessContext, tokens: TokenService, grants: GrantService
) -> Sequence[BaseRoute]:
    """Return the routes that create links and confirm the consents of connect links."""
    create = CreateLinkRoute(
        gate=context.gate,
        links=grants.connect_links,
        tokens=grants.link_tokens,
        audit=context.audit,
        allowed_scopes=context.settings.scopes,
        redirect_uris=context.settings.redirect_uris,
    )
    confirm = ConfirmLinkRoute(
        gate=context.gate,
        pending=grants.pending,
        records=grants.consent_records,
        document_of=grants.user_grants.document,
        on_connected=tokens.keep_first_token,
    )
    create_page_link = CreatePageLinkRoute(
        gate=context.gate, visits=grants.visits, audit=context.audit
    )
    return [*create.routes(), *confirm.routes(), *create_page_link.routes()]
