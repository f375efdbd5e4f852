"""Pending consents, links, revocations and webhooks, shared by the public and internal listener."""

from contextlib import AsyncExitStack
from dataclasses import dataclass

from broker.app.process_context import ProcessContext
from broker.app.token_service import TokenService
from broker.connections.visits import Visits, VisitTokens
from broker.consent.authorization_requests import AuthorizationRequests, StateTokens
from broker.consent.consent_records import ConsentRecords
from broker.consent.links import ConnectLinks, LinkTokens
from broker.crypto.signing import Signer
from broker.grants.pending_consents.store import PendingConsents
from broker.grants.revocation_outbox import RevocationOutbox
from broker.grants_api.user_grants import UserGrants
from broker.pages.browser_input import origin_of
from broker.revocations.revoker import Revoker
from broker.revocations.sender import RevocationSender
from broker.webhooks.delivery import Delivery, webhook_http_client
from broker.webhooks.outbox import WebhookOutbox
from broker.webhooks.sender import NoWebhookReceiver, WebhookSender
from broker.webhooks.signing import MessageSigner


@dataclass(frozen=True, slots=True)
class GrantService:
    """What creates and ends grants."""

    pending: PendingConsents
    revoker: Revoker
    revocations: RevocationSender
    webhooks: WebhookSender | NoWebhookReceiver
    connect_links: ConnectLinks
    link_tokens: LinkTokens
    authorization_requests: AuthorizationRequests
    consent_records: ConsentRecords
    user_grants: UserGrants
    visits: Visits


def open_grant_service(
    context: ProcessContext, tokens: TokenService, stack: AsyncExitStack
) -> GrantService:
    """`stack` closes it."""
    database, sealer, clock = context.database, context.sealer, context.clock
    keys = context.settings.secret_keys
    link_tokens = LinkTokens(Signer(keys, "links"))
    pending = PendingConsents(
        database,
        sealer,
        clock,
        keep_access_tokens=context.settings.access_tokens == "sealed",
        fingerprints=context.fingerprints,
    )
    revocations = RevocationSender(
        outbox=RevocationOutbox(database, sealer, clock),
        google=context.google,
        metrics=context.metrics,
        clock=clock,
    )
    return GrantService(
        pending=pending,
        revoker=Revoker(
            grants=context.grants,
            metrics=context.metrics,
            failed=context.failed_revocations,
            clock=clock,
            forget=tokens.cache.invalidate,
            on_queued=revocations.due.set,
        ),
        revocations=revocations,
        webhooks=_webhooks(context, stack),
        connect_links=ConnectLinks(database, clock),
        link_tokens=link_tokens,
        authorization_requests=AuthorizationRequests(
            database=database,
            sealer=sealer,
            states=StateTokens(Signer(keys, "state")),
            oauth=context.google,
            discovery=context.discovery,
            client=context.client,
            clock=clock,
        ),
        consent_records=ConsentRecords(context.audit, context.metrics, link_tokens, clock),
        user_grants=UserGrants(context.grants, pending, tokens.last_uses),
        visits=Visits(database, _visit_tokens(context), clock),
    )


def _visit_tokens(context: ProcessContext) -> VisitTokens:
    signer = Signer(context.settings.secret_keys, "connections links")
    return VisitTokens(signer, origin_of(context.settings.redirect_uris[0]))


def _webhooks(context: ProcessContext, stack: AsyncExitStack) -> WebhookSender | NoWebhookReceiver:
    """Without a receiver the outbox, which database triggers fill, is emptied."""
    outbox = WebhookOutbox(context.database, context.clock)
    receiver = context.settings.webhooks
    if receiver is None:
        return NoWebhookReceiver(outbox)
    http = webhook_http_client()
    stack.push_async_callback(http.aclose)
    sender = WebhookSender(
        outbox=outbox,
        delivery=Delivery(receiver.url, http),
        signer=MessageSigner(receiver.secrets),
        audit=context.audit,
        metrics=context.metrics,
        clock=context.clock,
    )
    stack.push_async_callback(sender.aclose)
    return sender
