"""Who reacts when a grant changes, on this replica or on another one.

Each commit that changes a grant reaches every replica through the change feed (LISTEN/NOTIFY and a
poll). This module names everything that the replica then does.
"""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from uuid import UUID

from broker.app.grant_service import GrantService
from broker.app.process_context import ProcessContext
from broker.app.token_service import TokenService
from broker.grants.account_grants import AccountGrants
from broker.grants.change_feed import ChangeFeed
from broker.grants.lost_commits import LostCommits
from broker.grants.recent_changes import GrantChange, OnChange
from broker.tokens.cache.staleness import StalenessLimit
from broker.webhooks.sender import WebhookSender


@dataclass(frozen=True, slots=True)
class GrantChangeFeed:
    """The change feed with its subscribers."""

    feed: ChangeFeed
    lost_commits: LostCommits


async def open_grant_change_feed(
    context: ProcessContext, tokens: TokenService, grants: GrantService, stack: AsyncExitStack
) -> GrantChangeFeed:
    """Subscribe, and poll once: this sets the clock that all replicas share.

    Raises `StorageUnavailable`.
    """
    # A changed grant: its cached tokens are dropped, and the product is notified.
    context.recent_changes.subscribe(tokens.cache.invalidate_older)
    if isinstance(grants.webhooks, WebhookSender):
        context.recent_changes.subscribe(_waking(grants.webhooks))
    # An answered poll: the cache is not stale.
    staleness = StalenessLimit(context.settings.stale_tokens_at_most, tokens.cache)
    stack.callback(staleness.close)
    lost = LostCommits(
        context.database,
        AccountGrants(context.fingerprints, context.clock),
        revoke=grants.revoker.revoke_again,
        settle=context.recent_changes.settle,
        audit=context.audit,
        metrics=context.metrics,
    )

    def on_failover(known: Sequence[GrantChange]) -> None:
        tokens.cache.invalidate_all()
        context.metrics.failovers.inc()
        lost.suspect(known)

    feed = ChangeFeed(
        context.database,
        context.clock,
        context.recent_changes,
        # A finished refresh: requests that wait for another replica's refresh go on.
        on_refreshed=tokens.wakeups.wake,
        on_failover=on_failover,
        on_poll=staleness.on_poll,
    )
    await feed.poll()
    return GrantChangeFeed(feed, lost)


def _waking(sender: WebhookSender) -> OnChange:
    def on_change(_user_id: str, _grant_id: UUID, _version: int) -> None:
        sender.due.set()

    return on_change
