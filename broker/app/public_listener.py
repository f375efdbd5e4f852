"""The public listener: consent, the user's own page, and Google's security events."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from broker.app.grant_service import GrantService
from broker.app.listener_app import listener_app, routed_app
from broker.app.process_context import ProcessContext
from broker.app.token_service import TokenService
from broker.callers.limits import NO_CALLER
from broker.connections.connections_pages import TranslatedConnectionsPages
from broker.connections.page_access import PageAccess
from broker.connections.page_routes import ConnectionsPage
from broker.connections.reconnection import Reconnection
from broker.connections.visitor_cookies import VisitorCookies
from broker.connections.visits import PAGE_PATH
from broker.consent.authorize import AuthorizeStep, LinkOpener
from broker.consent.browser_cookies import BrowserCookies
from broker.consent.browser_routes import public_handlers, public_routes
from broker.consent.callback import CallbackStep
from broker.consent.code_exchange import CodeExchange
from broker.consent.consent_pages import TranslatedPages
from broker.consent.consent_storage import ConsentPurge, ConsentStorage
from broker.consent.link_policies import LinkPolicies
from broker.consent.scope_rules import ScopeRules
from broker.crypto.signing import Signer
from broker.google.discovery import Discovery
from broker.google.errors import GoogleUnavailable
from broker.google.id_tokens import IdTokenVerifier
from broker.google.security_events import SecurityEventVerifier
from broker.grants.account_grants import AccountGrants
from broker.grants.pending_consents.table import AccountPendingConsents, PendingConsentTable
from broker.grants.revocation_outbox import RevocationOutbox
from broker.limits.public_rate_limit import PublicRateLimit
from broker.ops.periodic_jobs import Job
from broker.pages.browser_input import origin_of
from broker.pages.frame import STATIC_PATH
from broker.security_events.grant_effects import GrantEffects
from broker.security_events.inbox import KnownClients, SecurityEventInbox
from broker.security_events.pending_consent_effects import PendingConsentEffects
from broker.security_events.records import SecurityEventRecords
from broker.security_events.routes import EVENTS_PATH, event_routes
from broker.web.problems import NO_STORE

_GOOGLE_SOON_SECONDS = 1.0
"""The longest that a page waits for Google's discovery document, which it can do without."""


@dataclass(frozen=True, slots=True)
class PublicListener:
    """The application, and what leaves expired rows behind."""

    app: ASGIApp
    purges: Mapping[str, Job]
    """Periodic jobs, by name."""


def public_listener(
    context: ProcessContext, tokens: TokenService, grants: GrantService
) -> PublicListener:
    """Return the consent flow, the user's own page and the receiver of security events."""
    pages = TranslatedPages(context.settings.redirect_uris)
    own_origins = [origin_of(uri) for uri in context.settings.redirect_uris]
    policies = _link_policies(context)
    authorize, callback = _consent_steps(context, tokens, grants, policies)
    inbox = _event_inbox(context, tokens)
    events = SecurityEventVerifier(
        context.settings.discovery_url,
        context.http,
        context.clock,
        context.metrics,
        is_ours=KnownClients(context.database, lambda: context.client.client.client_id).include_any,
    )
    routes = [
        *public_routes(authorize, callback, pages, own_origins),
        *_connections_page(context, grants, policies).routes(),
        *event_routes(events, inbox),
    ]
    app = PublicRateLimit(
        routed_app(routes, public_handlers(pages)),
        addresses=context.addresses,
        refused=context.metrics.rate_limited.labels(NO_CALLER, "address"),
        refuse=lambda request, seconds: _too_many(pages, request, seconds),
        free=[STATIC_PATH + "/"],
    )
    return PublicListener(
        listener_app(context, "public", app, is_for_browsers=True),
        {
            "end consents": _consent_purge(grants).purge,
            "end visits": grants.visits.purge,
            "forget security events": inbox.purge,
        },
    )


def _event_inbox(context: ProcessContext, tokens: TokenService) -> SecurityEventInbox:
    """What Google's security events do."""
    return SecurityEventInbox(
        database=context.database,
        effects=GrantEffects(
            AccountGrants(context.fingerprints, context.clock),
            PendingConsentEffects(
                AccountPendingConsents(
                    context.fingerprints,
                    PendingConsentTable(
                        context.sealer,
                        RevocationOutbox(context.database, context.sealer, context.clock),
                        context.fingerprints,
                    ),
                )
            ),
            context.clock,
        ),
        records=SecurityEventRecords(context.audit, context.metrics),
        failed=context.failed_revocations,
        clock=context.clock,
        forget=tokens.cache.invalidate,
    )


def _link_policies(context: ProcessContext) -> LinkPolicies:
    own_page = origin_of(context.settings.redirect_uris[0]) + PAGE_PATH
    return LinkPolicies(context.registry.named, context.settings.scopes, own_pages=[own_page])


def _consent_steps(
    context: ProcessContext, tokens: TokenService, grants: GrantService, policies: LinkPolicies
) -> tuple[AuthorizeStep, CallbackStep]:
    keys, records = context.settings.secret_keys, grants.consent_records
    browsers = BrowserCookies(Signer(keys, "browser cookie"))
    rules = ScopeRules(lambda: context.client.client.client_id, context.settings.scopes)
    opener = LinkOpener(
        tokens=grants.link_tokens,
        links=grants.connect_links,
        policies=policies,
        records=records,
        clock=context.clock,
    )
    authorize = AuthorizeStep(
        opener=opener,
        browsers=browsers,
        proofs=Signer(keys, "page before"),
        rules=rules,
        grants=context.grants,
        requests=grants.authorization_requests,
        records=records,
    )
    callback = CallbackStep(
        requests=grants.authorization_requests,
        browsers=browsers,
        policies=policies,
        exchange=_code_exchange(context),
        rules=rules,
        storage=ConsentStorage(
            links=grants.connect_links,
            grants=context.grants,
            pending=grants.pending,
            on_connected=tokens.keep_first_token,
        ),
        records=records,
    )
    return authorize, callback


def _code_exchange(context: ProcessContext) -> CodeExchange:
    return CodeExchange(
        oauth=context.google,
        id_tokens=IdTokenVerifier(context.discovery, context.http, context.clock, context.metrics),
        discovery=context.discovery,
        client=context.client,
        clock=context.clock,
    )


def _consent_purge(grants: GrantService) -> ConsentPurge:
    return ConsentPurge(
        pending=grants.pending,
        requests=grants.authorization_requests,
        links=grants.connect_links,
        records=grants.consent_records,
    )


def _connections_page(
    context: ProcessContext, grants: GrantService, policies: LinkPolicies
) -> ConnectionsPage:
    keys, redirect_uris = context.settings.secret_keys, context.settings.redirect_uris
    origin = origin_of(redirect_uris[0])
    pages = TranslatedConnectionsPages(redirect_uris)
    cookies = VisitorCookies(
        visitors=Signer(keys, "connections visitors"),
        forms=Signer(keys, "connections forms"),
        notices=Signer(keys, "connections notices"),
        is_https=origin.startswith("https:"),
    )
    access = PageAccess(
        pages=pages,
        visits=grants.visits,
        cookies=cookies,
        policies=policies,
        audit=context.audit,
        own_origins=[origin_of(uri) for uri in redirect_uris],
    )
    reconnection = Reconnection(
        policies=policies,
        links=grants.connect_links,
        tokens=grants.link_tokens,
        audit=context.audit,
        redirect_uri=redirect_uris[0],
        return_to=origin + PAGE_PATH,
        google_origins=lambda: _google_origins(context.discovery),
    )
    return ConnectionsPage(
        access=access,
        pages=pages,
        cookies=cookies,
        grants=grants.user_grants,
        revoker=grants.revoker,
        reconnection=reconnection,
        clock=context.clock,
    )


async def _google_origins(discovery: Discovery) -> Sequence[str]:
    """Return the origin of Google's consent pages; none if it is not known within a second."""
    try:
        async with asyncio.timeout(_GOOGLE_SOON_SECONDS):
            return [origin_of((await discovery.endpoints()).authorization)]
    except (GoogleUnavailable, TimeoutError):
        return []


def _too_many(pages: TranslatedPages, request: Request, seconds: int) -> Response:
    headers = {"Retry-After": str(seconds)}
    if request.scope["path"] == EVENTS_PATH:
        return Response(status_code=429, headers={**NO_STORE, **headers})
    return pages.for_reader(request).error_page(
        429, request_id=request.state.request_id, headers=headers
    )
