"""Finds out which commits a failover lost, reports each, and restores the revocations among them.

What is compared is what this process had heard of lately with what the new primary has. A commit
that no surviving process heard of stays lost, and nobody can report it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from enum import StrEnum
from uuid import UUID

import asyncpg

from broker.audit.trail import AuditTrail
from broker.database.database import Database, StorageBusy
from broker.database.queries import load_queries
from broker.database.shares import of_account
from broker.grants.account_changes import AccountChanges
from broker.grants.known_changes import KnownChange
from broker.grants.model import Grant, GrantStatus
from broker.grants.rows import grant_from
from broker.telemetry.logs import cut_user_id
from broker.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

_SQL = load_queries("broker.grants")

RETRY_SECONDS = 1.0
"""How often the comparison is tried again while the new primary can't be read."""

_AT_ONCE = 1000

ERASED_BY_EVENT = frozenset({"google_account_hijacked", "google_tokens_revoked"})
"""Reasons with which a security event erased the tokens of a grant."""

Revoke = Callable[[Grant], Awaitable[Sequence[Grant]]]
"""Revokes a grant that still has the version given, and no other; returns it if it did."""

Settle = Callable[[KnownChange, asyncpg.Record | None], None]


class LostCommit(StrEnum):
    """What was lost, as metrics and audit records name it."""

    CONSENT = "consent"
    """The grant itself is gone: the user has to connect again."""
    REVOCATION = "revocation"
    """A revoked grant was alive again, or is gone together with its revocation."""
    SECURITY_EVENT = "security_event"
    """A grant that Google had the broker erase was alive again."""
    CHANGE = "change"
    """The grant is back at an earlier version."""


class LostCommits:
    """What a failover made suspect, until it is compared with the new primary."""

    def __init__(
        self,
        database: Database,
        changes: AccountChanges,
        *,
        revoke: Revoke,
        settle: Settle,
        audit: AuditTrail,
        metrics: Metrics,
    ) -> None:
        """`settle` is called once nothing of a change is lost any more, with the grant's row."""
        self._settle = settle
        self._database = database
        self._changes = changes
        self._revoke = revoke
        self._audit = audit
        self._counted = metrics.lost_commits
        self._suspects: dict[UUID, KnownChange] = {}
        self._reported: set[UUID] = set()
        self.due = asyncio.Event()
        """Set when there is something to compare."""

    def suspect(self, known: Sequence[KnownChange]) -> None:
        """A failover may have lost any of these."""
        self._suspects.update({change.grant_id: change for change in known})
        self.due.set()

    async def examine(self) -> None:
        """Compare all that is suspect. Raises `StorageUnavailable`; the rest then stays suspect.

        Every replica may do so at the same time: what one has restored the others find in order.
        """
        while self._suspects:
            suspects, busy = list(self._suspects.values()), None
            for start in range(0, len(suspects), _AT_ONCE):
                busy = await self._compare(suspects[start : start + _AT_ONCE]) or busy
            if busy is not None:
                raise busy

    async def _compare(self, portion: Sequence[KnownChange]) -> StorageBusy | None:
        """Those whose locks somebody else keeps stay suspect, and keep nobody from the others."""
        rows = await self._database.read(
            _SQL["grants_by_id"], [change.grant_id for change in portion]
        )
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

    async def _examine(self, known: KnownChange, row: asyncpg.Record | None) -> bool:
        """False where the grant has changed since it was read: it is compared again."""
        grant = grant_from(row) if row is not None else None
        lost = _what_was_lost(known, grant, row)
        if lost is None:
            return True
        if known.grant_id not in self._reported:
            # Before it is restored: if the answer to that is lost, the next try finds it in order.
            self._reported.add(known.grant_id)
            self._report(known, grant, lost)
        return grant is None or await self._restore(known, grant, lost)

    async def _restore(self, known: KnownChange, grant: Grant, lost: LostCommit) -> bool:
        """False where the grant has changed since it was read, as it has once its end is back."""
        if lost is LostCommit.REVOCATION:
            await self._revoke(grant)
            return False
        if lost is LostCommit.CHANGE and (
            # It has changed again since the failover, or there is nothing to hand out.
            grant.version >= known.version or grant.status is not GrantStatus.ACTIVE
        ):
            return True
        async with (
            self._database.exclusively(of_account(grant.google_sub)),
            self._database.transaction() as connection,
        ):
            await self._changes.lock(connection, [grant.google_sub])
            if not await connection.fetchval(_SQL["is_current"], grant.id, grant.version, None):
                return False
            if lost is LostCommit.SECURITY_EVENT and known.reason is not None:
                await self._changes.erase(connection, grant, known.reason)
                return False
            # Whether its tokens are still good is for Google to say.
            await self._changes.ask_anew(connection, grant)
        return True

    def _report(self, known: KnownChange, grant: Grant | None, lost: LostCommit) -> None:
        takes_rights = lost in (LostCommit.REVOCATION, LostCommit.SECURITY_EVENT)
        outcome = lost.value
        if takes_rights:
            outcome += ":restored" if grant is not None else ":grant_lost"
        logger.log(
            logging.ERROR if takes_rights else logging.WARNING,
            "a failover of PostgreSQL lost a commit",
            extra={"lost": outcome, "user": cut_user_id(known.user_id)},
        )
        self._counted.labels(lost.value).inc()
        self._audit.record(
            action="commit_lost",
            outcome=outcome,
            user_id=known.user_id,
            account_sub=known.google_sub or (grant.google_sub if grant is not None else None),
        )


def _what_was_lost(
    known: KnownChange, grant: Grant | None, row: asyncpg.Record | None
) -> LostCommit | None:
    if grant is None or row is None:
        return LostCommit.REVOCATION if known.is_revoked else LostCommit.CONSENT
    if known.updated_at is not None and grant.stands_since > known.updated_at:
        # Consented to again after all that was known.
        return None
    if known.is_revoked:
        # Another replica may have restored it.
        return None if grant.status is GrantStatus.REVOKED else LostCommit.REVOCATION
    if known.reason in ERASED_BY_EVENT:
        return LostCommit.SECURITY_EVENT if grant.status is GrantStatus.ACTIVE else None
    is_another = known.changed_at is not None and known.changed_at != row["changed_at"]
    if grant.version < known.version or (grant.version == known.version and is_another):
        return LostCommit.CHANGE
    return None
