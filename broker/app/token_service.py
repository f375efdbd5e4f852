"""Token cache, refresher and last uses: what hands out tokens, shared by all listeners."""

import logging
from contextlib import AsyncExitStack
from dataclasses import dataclass

from broker.app.metric_setup import observe_refreshes
from broker.app.process_context import ProcessContext
from broker.audit.trail import AuditTrail
from broker.database.database import StorageUnavailable
from broker.grants.last_uses import LastUses
from broker.grants.model import AccessToken, Grant, to_scope_set
from broker.grants.recent_changes import RecentChanges
from broker.grants.refresh_lease import RefreshLeases
from broker.tokens.cache.cached_token import CachedToken
from broker.tokens.cache.token_cache import TokenCache, Watch
from broker.tokens.refresh.google_calls import RefreshCalls
from broker.tokens.refresh.google_refresh import GoogleRefresh, RefreshRecords
from broker.tokens.refresh.lease_waits import ReplicaLeases, Wakeups
from broker.tokens.refresh.proactive_refresh import ProactiveRefresh, RefreshSchedule
from broker.tokens.refresh.refresher import Refresher
from broker.tokens.refresh.write_behind import WriteBehind

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TokenService:
    """The token cache and everything that fills it."""

    cache: TokenCache
    recent_changes: RecentChanges
    last_uses: LastUses
    wakeups: Wakeups
    write_behind: WriteBehind
    refresher: Refresher
    proactive_refresh: ProactiveRefresh

    def keep_first_token(self, user_id: str, grant: Grant, token: AccessToken | None) -> None:
        """Cache the token of a new consent, unless the grant has changed since its commit.

        The change feed may have reported such a change before this call, and reports it only once.
        """
        self.cache.invalidate(user_id)
        if token is not None and not self.recent_changes.has_changed(grant):
            self.cache.put(user_id, to_scope_set(grant.scopes), CachedToken(grant, token), Watch())


def open_token_service(context: ProcessContext, stack: AsyncExitStack) -> TokenService:
    """`stack` stops the refreshes, and then writes the last audit records and uses."""
    schedule = RefreshSchedule(context.clock)
    cache = TokenCache(on_put=schedule.add, on_removed=schedule.remove, on_cleared=schedule.clear)
    last_uses = LastUses(context.grants, context.clock)
    stack.push_async_callback(_write_what_is_left, context.audit, last_uses)
    wakeups = Wakeups()
    write_behind = WriteBehind(context.grants)
    leases = ReplicaLeases(RefreshLeases(context.database, context.clock), wakeups)
    calls = RefreshCalls(google=context.google, client=context.client, clock=context.clock)
    google_refresh = GoogleRefresh(
        grants=context.grants,
        calls=calls,
        leases=leases,
        write_behind=write_behind,
        cache=cache,
        records=RefreshRecords(context.metrics, context.audit),
        clock=context.clock,
    )
    refresher = Refresher(
        grants=context.grants, cache=cache, leases=leases, calls=calls, google=google_refresh
    )
    observe_refreshes(context.metrics, refresher)
    stack.push_async_callback(refresher.aclose)
    proactive_refresh = ProactiveRefresh(
        schedule=schedule,
        cache=cache,
        grants=context.grants,
        refresher=refresher,
        clock=context.clock,
    )
    stack.push_async_callback(proactive_refresh.aclose)
    return TokenService(
        cache=cache,
        recent_changes=context.recent_changes,
        last_uses=last_uses,
        wakeups=wakeups,
        write_behind=write_behind,
        refresher=refresher,
        proactive_refresh=proactive_refresh,
    )


async def _write_what_is_left(audit: AuditTrail, last_uses: LastUses) -> None:
    """Write what is still in memory, before the connections close."""
    try:
        await audit.flush(is_last=True)
        await last_uses.flush_last()
    except StorageUnavailable as error:
        logger.warning(
            "PostgreSQL is unavailable at the stop: the last audit records are lost",
            extra={"event": "last_audit_records_lost", "reason": str(error)},
        )
    audit.chain.log_head()
