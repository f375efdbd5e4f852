"""Repeats lost revocations in a restored database, and at Google.

It may be interrupted, repeated, and run while brokers serve. A grant that the user consented to
after the revocation stays as it is.
"""

from collections.abc import AsyncIterator
from enum import StrEnum

import asyncpg

from broker.audit.trail import AuditTrail
from broker.database.database import Connection, Database
from broker.database.queries import load_queries
from broker.database.shares import account_lock
from broker.grants.account_grants import AccountGrants
from broker.grants.model import Grant, GrantStatus
from broker.grants.store import GrantStore
from broker.recovery.lost_revocations import REPLAYED, LostRevocation, RevocationKind
from broker.security_events.grant_effects import ACCOUNT_HIJACKED, TOKENS_REVOKED

_SQL = load_queries("broker.recovery")
_ROWS_AT_ONCE = 2_000

ORIGIN = "restore"
"""The origin of a repeated revocation; a label of `broker_revocations_total`."""


class ReplayOutcome(StrEnum):
    """The result of replaying one lost revocation."""

    REPEATED = "revoked again"
    ALREADY = "already revoked, or not in the backup"
    NEWER = "skipped: the user has consented again since"
    IN_DOUBT = "in doubt"


class Replayer:
    """All methods raise `StorageUnavailable` if PostgreSQL is unavailable."""

    def __init__(
        self,
        *,
        database: Database,
        grants: GrantStore,
        account_grants: AccountGrants,
        audit: AuditTrail,
    ) -> None:
        self._database = database
        self._grants = grants
        self._account_grants = account_grants
        self._audit = audit

    async def replay(self, lost: LostRevocation, *, is_dry_run: bool = False) -> ReplayOutcome:
        """Repeat a revocation and audit it; a dry run only returns what would happen."""
        outcome = await self._assess(lost)
        if outcome is not ReplayOutcome.REPEATED or is_dry_run:
            return outcome
        if lost.kind is RevocationKind.REVOKED:
            revoked = await self._grants.revoke(lost.user_id, lost.account_sub, origin=ORIGIN)
            for grant in revoked:
                self._record(lost, grant, "grant_revoked", REPLAYED)
        else:
            for grant in await self._repeat_security_event(lost):
                event = lost.record.outcome.removesuffix(":unsettled")
                self._record(lost, grant, "security_event", f"{event}:{REPLAYED}")
        await self._audit.flush()
        return ReplayOutcome.REPEATED

    async def _assess(self, lost: LostRevocation) -> ReplayOutcome:
        """Return `REPEATED` if there is something to revoke."""
        live = [g for g in await self._grants.list(lost.user_id) if _concerns(lost, g)]
        older = [g for g in live if g.stands_since <= lost.record.at]
        if lost.kind is RevocationKind.IN_DOUBT:
            return ReplayOutcome.IN_DOUBT if older else ReplayOutcome.ALREADY
        if live and not older:
            return ReplayOutcome.NEWER
        if lost.kind is RevocationKind.REVOKED:
            # A revocation also covers pending consents.
            is_done = await self._grants.is_revoked(
                lost.user_id, lost.account_sub, since=lost.record.at
            )
        else:
            is_done = not any(g.status is GrantStatus.ACTIVE for g in older)
        return ReplayOutcome.ALREADY if is_done else ReplayOutcome.REPEATED

    async def _repeat_security_event(self, lost: LostRevocation) -> list[Grant]:
        account = lost.account_sub
        assert account is not None  # noqa: S101  (only one in doubt may lack it)
        async with (
            self._database.exclusively(account_lock(account)),
            self._database.transaction() as connection,
        ):
            await self._account_grants.lock(connection, [account])
            changed = []
            for grant in await self._account_grants.find_by_account(connection, account):
                if not _concerns(lost, grant) or grant.stands_since > lost.record.at:
                    continue
                if lost.kind is RevocationKind.SUSPENDED:
                    await self._account_grants.suspend(connection, grant)
                else:
                    reason = ACCOUNT_HIJACKED if lost.is_hijacking else TOKENS_REVOKED
                    await self._account_grants.erase_tokens(connection, grant, reason)
                changed.append(grant)
            return changed

    def _record(self, lost: LostRevocation, grant: Grant, action: str, outcome: str) -> None:
        self._audit.record(
            action=action,
            outcome=outcome,
            caller=lost.record.caller,
            user_id=grant.user_id,
            account_sub=grant.google_sub,
            scopes=grant.scopes,
            request_id=lost.record.request_id,
        )


def _concerns(lost: LostRevocation, grant: Grant) -> bool:
    return (
        grant.user_id == lost.user_id
        and lost.account_sub in (None, grant.google_sub)
        and grant.status is not GrantStatus.REVOKED
    )


async def live_grants(connection: Connection) -> AsyncIterator[asyncpg.Record]:
    """Yield every grant that can hand out a token, within the connection's transaction.

    Without an export, each of them may have been revoked after the backup.
    """
    async for row in connection.cursor(_SQL["live_grants"], prefetch=_ROWS_AT_ONCE):
        yield row
