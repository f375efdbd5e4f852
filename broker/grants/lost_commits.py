"""Finds the commits that a failover lost, reports each, and restores the revocations among them.

The changes that this process knew before the failover are compared with the new primary. A commit
that no surviving process knew of stays lost and unreported.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from enum import StrEnum
from uuid import UUID

import asyncpg

from broker.audit.trail import AuditTrail
from broker.database.database import Database, StorageBusy
from broker.database.queries import load_queries
from broker.database.shares import account_lock
from broker.grants.account_grants import AccountGrants
from broker.grants.model import Grant, GrantStatus
from broker.grants.recent_changes import GrantChange
from broker.grants.rows import grant_from
from broker.telemetry.logs import cut_user_id
from broker.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

_SQL = load_queries("broker.grants")

RETRY_SECONDS = 1.0
"""The interval between comparisons while the new primary can't be read."""

_GRANTS_PER_READ = 1000

ERASED_BY_EVENT = frozenset({"google_account_hijacked", "google_tokens_revoked"})
"""Reasons with which a security event erased the tokens of a grant."""

Revoke = Callable[[Grant], Awaitable[Sequence[Grant]]]
"""Revokes a grant only if it still has the given version; returns the grant if it did."""

Settle = Callable[[GrantChange, asyncpg.Record | None], None]


class LostCommit(StrEnum):
    """The kinds of lost commits, as metrics and audit records name them."""

    CONSENT = "consent"
    """The grant is gone: the user has to connect again."""
    REVOCATION = "revocation"
    """A revoked grant was live again, or is gone together with its revocation."""
    SECURITY_EVENT = "security_event"
    """A grant whose tokens were erased for a security event was active again."""
    CHANGE = "change"
    """The grant is back at an earlier version."""


class LostCommits:
    """The changes that a failover made suspect, until each is compared with the new primary."""

    def __init__(
        self,
        database: Database,
        account_grants: AccountGrants,
        *,
        revoke: Revoke,
        settle: Settle,
        audit: AuditTrail,
        metrics: Metrics,
    ) -> None:
        """`settle` receives each change, with the grant's row, once nothing of it is lost."""
        self._settle = settle
        self._database = database
        self._account_grants = account_grants
        self._revoke = revoke
        self._audit = audit
        self._counter = metrics.lost_commits
        self._suspects: dict[UUID, GrantChange] = {}
        self._reported: set[UUID] = set()
        self.due = asyncio.Event()
        """Set when there is something to compare."""

    def suspect(self, changes: Sequence[GrantChange]) -> None:
        """Mark changes that a failover may have lost."""
        self._suspects.update({change.grant_id: change for change in changes})
        self.due.set()

    async def examine(self) -> None:
        """Compare all suspect changes. Raises `StorageUnavailable`; the rest then stays suspect.

        All replicas may do so concurrently: they find what one has restored unchanged.
        """
        while self._suspects:
            suspects, busy = list(self._suspects.values()), None
            for start in range(0, len(suspects), _GRANTS_PER_READ):
                busy = await self._compare(suspects[start : start + _GRANTS_PER_READ]) or busy
            if busy is not None:
                raise busy

    async def _compare(self, portion: Sequence[GrantChange]) -> StorageBusy | None:
        """Changes whose locks are held by others stay suspect, and do not delay the rest."""
        rows = await self._database.read(_SQL["find_by_ids"], [each.grant_id for each in portion])
        found = {UUID(bytes=row["id"].bytes): row for row in rows}
        busy = None
        for change in portion:
            row = found.get(change.grant_id)
            try:
                is_settled = await self._examine(change, row)
            except StorageBusy as error:
                busy = error
                continue
            if not is_settled:
                continue
            self._settle(change, row)
            if self._suspects.get(change.grant_id) is change:
                del self._suspects[change.grant_id]
                self._reported.discard(change.grant_id)
        return busy

    async def _examine(self, known: GrantChange, row: asyncpg.Record | None) -> bool:
        """Return False if the grant changed since it was read, so that it is compared again."""
        grant = grant_from(row) if row is not None else None
        lost = find_lost_commit(known, grant, row["changed_at"] if row is not None else None)
        if lost is None:
            return True
        if known.grant_id not in self._reported:
            # Before it is restored: if the answer to that is lost, the next try finds no loss.
            self._reported.add(known.grant_id)
            self._report(known, grant, lost)
        return grant is None or await self._restore(known, grant, lost)

    async def _restore(self, known: GrantChange, grant: Grant, lost: LostCommit) -> bool:
        """Return False if the grant changed, by this call too, so that it is compared again."""
        if lost is LostCommit.REVOCATION:
            await self._revoke(grant)
            return False
        if lost is LostCommit.CHANGE and (
            # It has changed again since the failover, or no token of it can be served.
            grant.version >= known.version or grant.status is not GrantStatus.ACTIVE
        ):
            return True
        async with (
            self._database.exclusively(account_lock(grant.google_sub)),
            self._database.transaction() as connection,
        ):
            await self._account_grants.lock(connection, [grant.google_sub])
            if not await connection.fetchval(_SQL["is_current"], grant.id, grant.version, None):
                return False
            if lost is LostCommit.SECURITY_EVENT and known.reason is not None:
                await self._account_grants.erase_tokens(connection, grant, known.reason)
                return False
            # Only Google can tell whether its tokens still work.
            await self._account_grants.require_refresh(connection, grant)
        return True

    def _report(self, known: GrantChange, grant: Grant | None, lost: LostCommit) -> None:
        is_deactivation = lost in (LostCommit.REVOCATION, LostCommit.SECURITY_EVENT)
        outcome = lost.value
        if is_deactivation:
            outcome += ":restored" if grant is not None else ":grant_lost"
        logger.log(
            logging.ERROR if is_deactivation else logging.WARNING,
            "a PostgreSQL failover lost a commit",
            extra={
                "event": "commit_lost",
                "lost": outcome,
                "user": cut_user_id(known.user_id),
            },
        )
        self._counter.labels(lost.value).inc()
        self._audit.record(
            action="commit_lost",
            outcome=outcome,
            user_id=known.user_id,
            account_sub=known.google_sub or (grant.google_sub if grant is not None else None),
        )


def find_lost_commit(
    known: GrantChange, grant: Grant | None, changed_at: datetime | None
) -> LostCommit | None:
    """Compare a known change with the new primary's grant and the timestamp of its last change."""
    if grant is None:
        return LostCommit.REVOCATION if known.is_revoked else LostCommit.CONSENT
    if known.updated_at is not None and grant.stands_since > known.updated_at:
        # The user has consented again since the known change.
        return None
    if known.is_revoked:
        # Another replica may have restored it.
        return None if grant.status is GrantStatus.REVOKED else LostCommit.REVOCATION
    if known.reason in ERASED_BY_EVENT:
        return LostCommit.SECURITY_EVENT if grant.status is GrantStatus.ACTIVE else None
    is_another = known.changed_at is not None and known.changed_at != changed_at
    if grant.version < known.version or (grant.version == known.version and is_another):
        return LostCommit.CHANGE
    return None
