"""Puts the parts together, with the background jobs that keep them going."""

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from uuid import UUID

from starlette.types import ASGIApp

from broker.app.gauges import observe_refreshes
from broker.app.internal_api import internal_api, revoker_of
from broker.app.process_context import Ground, lay_ground, routed
from broker.app.public_site import browser_side, connections_page, consent_flow, event_inbox
from broker.audit import retention
from broker.audit import trail as audit
from broker.audit.keys import audit_keys
from broker.audit.retention import AuditRetention
from broker.audit.trail import AuditTrail
from broker.background import Background
from broker.clock import Clock, SteadyClock
from broker.connections.visits import Visits
from broker.database.clock import DatabaseClock
from broker.database.database import StorageUnavailable
from broker.database.shares import PROACTIVE_REFRESHES
from broker.grants import last_uses, lost_commits
from broker.grants.account_changes import AccountChanges
from broker.grants.change_feed import GrantChanges
from broker.grants.known_changes import KnownChange
from broker.grants.last_uses import LastUses
from broker.grants.lookups import LookupFill
from broker.grants.lost_commits import LostCommits
from broker.grants.pending.fingerprints import WaitingLookupFill
from broker.grants.pending.store import PendingConsents
from broker.grants.purging import GrantPurge
from broker.grants.refresh_lease import RefreshLeases
from broker.grants_api import revoker
from broker.issuers import trusted as trusted_issuers
from broker.ops import upkeep
from broker.ops.health import HealthCheck, Part
from broker.ops.routes import ops_routes
from broker.ops.upkeep import Upkeep
from broker.settings import Settings
from broker.telemetry.loop_lag import LoopLag
from broker.tokens.cache import proactive_refresh as refresh_ahead
from broker.tokens.cache.proactive_refresh import RefreshAhead
from broker.tokens.cache.staleness import StalenessLimit
from broker.tokens.cache.token_cache import HeldTokens
from broker.tokens.refresh import write_behind as unsaved_refreshes
from broker.tokens.refresh.refresher import Refresher
from broker.tokens.refresh.wakeups import Wakeups
from broker.tokens.refresh.write_behind import UnsavedRefreshes
from broker.web.errors import INTERNAL_HANDLERS
from broker.webhooks import sender as webhook_sender
from broker.webhooks.delivery import Delivery, webhook_http_client
from broker.webhooks.messages import MessageSigner
from broker.webhooks.outbox import WebhookOutbox
from broker.webhooks.sender import WebhookSender
from broker.webhooks.unwanted import UnwantedEvents

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Broker:
    """The assembled broker: one ASGI application a listener, and how it is."""

    public: ASGIApp
    internal: ASGIApp
    ops: ASGIApp
    health: HealthCheck


@asynccontextmanager
async def assembled(  # noqa: PLR0915  (wired once, from top to bottom)
    settings: Settings, clock: Clock | None = None
) -> AsyncIterator[Broker]:
    """The broker, ready to serve, with its background jobs running. Raises `StartError`."""
    async with AsyncExitStack() as stack:
        own_clock = clock or SteadyClock()
        ground = await lay_ground(settings, DatabaseClock(own_clock), stack)
        held = HeldTokens()
        wakeups = Wakeups()
        uses = LastUses(ground.grants, ground.clock)
        stack.push_async_callback(_flush, ground.audit, uses)
        webhooks = _webhooks(ground, stack)

        def on_change(user_id: str, grant_id: UUID, version: int) -> None:
            held.changed(user_id, grant_id, version)
            if isinstance(webhooks, WebhookSender):
                webhooks.due.set()

        ground.known_changes.subscribe(on_change)
        staleness = StalenessLimit(settings.stale_tokens_at_most, held)
        stack.callback(staleness.close)
        revoking = revoker_of(ground, held)
        lost = LostCommits(
            ground.database,
            AccountChanges(ground.lookups, ground.clock),
            revoke=revoking.revoke_again,
            settle=ground.known_changes.settle,
            audit=ground.audit,
            metrics=ground.metrics,
        )

        def on_failover(known: Sequence[KnownChange]) -> None:
            held.forget_all()
            ground.metrics.failovers.inc()
            lost.suspect(known)

        changing = GrantChanges(
            ground.database,
            ground.clock,
            ground.known_changes,
            on_refreshed=wakeups.wake,
            on_failover=on_failover,
            on_poll=staleness.on_poll,
        )
        # Before anything is served: the clock that all replicas share, and where the changes begin.
        await changing.poll()
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
        observe_refreshes(ground.metrics, refresher)
        stack.push_async_callback(refresher.aclose)
        ahead = RefreshAhead(
            held=held, grants=ground.grants, refresher=refresher, clock=ground.clock
        )
        held.on_held, held.on_gone, held.on_all_gone = ahead.plan, ahead.drop, ahead.drop_all
        stack.push_async_callback(ahead.aclose)
        pending = PendingConsents(
            ground.database,
            ground.sealer,
            ground.clock,
            ground.grants,
            keep_access_tokens=settings.access_tokens == "sealed",
            lookups=ground.lookups,
        )
        internal = internal_api(ground, held, uses, refresher, pending, revoking)
        flow = consent_flow(ground, held, pending)
        visits = Visits(ground.database, ground.clock)
        page = connections_page(ground, visits, uses, pending, revoking)
        inbox = event_inbox(ground, held)
        public = browser_side(ground, flow, page, inbox)
        health = HealthCheck(
            [
                Part("database", ground.database.ping),
                Part("secret_source", ground.client.ping),
                Part("google", ground.discovery.ping),
                Part("callers_file", ground.registry.ping),
                Part("issuers", ground.issuers.ping),
                Part("revocations", ground.failed_revocations.ping),
            ],
            holds_tokens=lambda: len(held) > 0,
        )
        stack.push_async_callback(health.aclose)
        ops = routed(ops_routes(ground.metrics.registry, health), INTERNAL_HANDLERS)
        stack.callback(LoopLag(ground.metrics.event_loop_lag).close)
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
        filling_waiting = WaitingLookupFill(ground.database, ground.sealer, ground.lookups)
        purging = GrantPurge(ground.database, (ground.clock, own_clock))
        cleaning = Upkeep(
            grants=ground.grants,
            metrics=ground.metrics,
            purges={
                "end consents": flow.purge,
                "end visits": visits.purge,
                "forget security events": inbox.purge,
                "purge grants": purging.round,
                "fill in lookup values": filling.round,
                "fill in lookup values of waiting consents": filling_waiting.run,
                "tidy webhooks": webhooks.tidy,
            },
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
        background.every(lost_commits.RETRY_SECONDS, "lost commits", lost.examine, wake=lost.due)
        background.every(
            refresh_ahead.LOOK_SECONDS, "refresh ahead", ahead.round, share=PROACTIVE_REFRESHES
        )
        background.every(trusted_issuers.LOOK_SECONDS, "issuers", ground.issuers.round)
        background.every(unsaved_refreshes.FLUSH_SECONDS, "unsaved refreshes", unsaved.flush)
        background.watch("grant changes", changing.follow)
        background.watch("oauth client", ground.client.watch)
        background.watch("callers file", ground.registry.watch)
        yield Broker(public, internal, ground.listener("ops", ops), health)


def _webhooks(ground: Ground, stack: AsyncExitStack) -> WebhookSender | UnwantedEvents:
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


async def _flush(trail: AuditTrail, uses: LastUses) -> None:
    """Write what is still in memory before the connections close."""
    try:
        await trail.flush(is_last=True)
        await uses.flush_last()
    except StorageUnavailable:
        logger.warning("the last audit records could not be written: storage is away")
    trail.chain.log_head()
