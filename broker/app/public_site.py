"""The browser's side: consent, the user's own page, and where Google tells of security events."""

from functools import partial

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from broker.app.process_context import Ground, routed
from broker.callers.limits import NOBODY
from broker.connections.doorway import Doorway
from broker.connections.page_routes import ConnectionsPage
from broker.connections.pages import TranslatedConnectionsPages
from broker.connections.reconnection import Reconnection
from broker.connections.visit_links import PAGE_PATH, VisitLinks
from broker.connections.visitors import VisitorCookies
from broker.connections.visits import Visits
from broker.consent.browser_routes import public_handlers, public_routes
from broker.consent.browsers import BrowserCookies
from broker.consent.departures import Departures
from broker.consent.endings import TripEndings
from broker.consent.exchange import CodeExchange
from broker.consent.flow import ConsentFlow
from broker.consent.links import LinkTokens
from broker.consent.pages import TranslatedPages
from broker.consent.policies import LinkPolicies
from broker.consent.questions import Questions
from broker.consent.records import ConsentRecords
from broker.consent.store import ConsentStore
from broker.consent.transactions import Transactions
from broker.crypto.signing import Signer
from broker.google.id_tokens import IdTokenVerifier
from broker.google.security_event_tokens import SecurityEventVerifier
from broker.grants.account_changes import AccountChanges
from broker.grants.endings import ConsentEndings
from broker.grants.known_changes import KnownChanges
from broker.grants.last_uses import LastUses
from broker.grants.model import AccessToken, Grant, scope_set
from broker.grants.pending.changes import WaitingChanges
from broker.grants.pending.store import PendingConsents
from broker.grants_api.revoker import Revoker
from broker.limits.public_site import PublicLimits
from broker.pages.forms import origin_of
from broker.pages.static_files import STATIC_PATH
from broker.security_events.effects import SecurityEffects
from broker.security_events.inbox import SecurityEventInbox
from broker.security_events.routes import EVENTS_PATH, event_routes
from broker.security_events.waiting_effects import WaitingEffects
from broker.tokens.cache.cached_token import HeldToken
from broker.tokens.cache.token_cache import HeldTokens, Watch
from broker.web.problems import NO_STORE


def event_inbox(ground: Ground, held: HeldTokens) -> SecurityEventInbox:
    """What Google's security events do."""
    return SecurityEventInbox(
        database=ground.database,
        effects=SecurityEffects(
            AccountChanges(ground.lookups, ground.clock),
            WaitingEffects(
                WaitingChanges(ground.lookups, ConsentEndings(ground.sealer, ground.clock))
            ),
            ground.clock,
        ),
        audit=ground.audit,
        metrics=ground.metrics,
        failed=ground.failed_revocations,
        clock=ground.clock,
        client_id=lambda: ground.client.client.client_id,
        forget=held.forget,
    )


def hold_first_token(
    held: HeldTokens, known: KnownChanges, user_id: str, grant: Grant, token: AccessToken | None
) -> None:
    """Cache what came with a consent, unless the grant has changed since that was committed.

    Such a change may have been heard of before this: then nobody would say so again.
    """
    held.forget(user_id)
    if token is not None and not known.has_changed(grant):
        held.keep(user_id, scope_set(grant.scopes), HeldToken(grant, token), Watch())


def consent_store(ground: Ground) -> ConsentStore:
    return ConsentStore(ground.database, ground.sealer, ground.clock)


def link_tokens(ground: Ground) -> LinkTokens:
    return LinkTokens(Signer(ground.settings.secret_keys, "links"))


def consent_flow(ground: Ground, held: HeldTokens, pending: PendingConsents) -> ConsentFlow:
    keys, records = ground.settings.secret_keys, ConsentRecords(ground.audit, ground.metrics)
    store, links = consent_store(ground), link_tokens(ground)
    browsers = BrowserCookies(Signer(keys, "browser cookie"))
    transactions = Transactions(Signer(keys, "state"))
    questions = Questions(ground.grants, ground.client, ground.settings.scopes)
    own_page = origin_of(ground.settings.redirect_uris[0]) + PAGE_PATH
    policies = LinkPolicies(ground.registry.named, ground.settings.scopes, own_pages=[own_page])
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
        on_connected=partial(hold_first_token, held, ground.known_changes),
    )


def visit_links(ground: Ground) -> VisitLinks:
    signer = Signer(ground.settings.secret_keys, "connections links")
    return VisitLinks(signer, origin_of(ground.settings.redirect_uris[0]))


def connections_page(
    ground: Ground,
    visits: Visits,
    uses: LastUses,
    pending: PendingConsents,
    revoking: Revoker,
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
        links=visit_links(ground),
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
        pending=pending,
        last_uses=uses,
        revoker=revoking,
        reconnection=Reconnection(
            registry=ground.registry,
            store=consent_store(ground),
            links=link_tokens(ground),
            audit=ground.audit,
            clock=ground.clock,
            allowed_scopes=ground.settings.scopes,
            redirect_uri=redirect_uris[0],
            return_to=origin + PAGE_PATH,
        ),
        clock=ground.clock,
        way_to_google=ground.way_to_google,
    )


def browser_side(
    ground: Ground, flow: ConsentFlow, page: ConnectionsPage, inbox: SecurityEventInbox
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
        routed(routes, public_handlers(pages)),
        addresses=ground.addresses,
        refused=ground.metrics.rate_limited.labels(NOBODY, "address"),
        refuse=lambda request, seconds: _too_many(pages, request, seconds),
        free=[STATIC_PATH + "/"],
    )
    return ground.listener("public", app, is_for_browsers=True)


def _too_many(pages: TranslatedPages, request: Request, seconds: int) -> Response:
    headers = {"Retry-After": str(seconds)}
    if request.scope["path"] == EVENTS_PATH:
        return Response(status_code=429, headers={**NO_STORE, **headers})
    return pages.for_reader(request).error_page(
        429, request_id=request.state.request_id, headers=headers
    )
