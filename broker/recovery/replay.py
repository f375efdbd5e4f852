"""Ends grants again whose end a restored database does not know: here, and at Google.

Safe to break off, to repeat, and while brokers serve. What the user consented to after a grant had
ended is left alone.
"""

from enum import StrEnum

from broker.audit.trail import AuditTrail
from broker.clock import Clock
from broker.database.database import Database
from broker.database.shares import of_account
from broker.grants.account_changes import AccountChanges
from broker.grants.model import Grant, GrantStatus
from broker.grants.store import GrantStore
from broker.recovery.lost_endings import REPLAYED, Ending, How
from broker.security_events.effects import ACCOUNT_HIJACKED, TOKENS_REVOKED

ORIGIN = "restore"
"""Of the revocation that Google is told; a label of `broker_revocations_total`."""


class Replayed(StrEnum):
    """What became of one ending."""

    ENDED = "ended again"
    ALREADY = "already ended, or not in the backup"
    NEWER = "left alone: consented to again since"
    IN_DOUBT = "in doubt"


class Replayer:
    """All methods raise `StorageUnavailable` when PostgreSQL is away."""

    def __init__(
        self,
        *,
        database: Database,
        grants: GrantStore,
        changes: AccountChanges,
        audit: AuditTrail,
        clock: Clock,
    ) -> None:
        self._database = database
        self._grants = grants
        self._changes = changes
        self._audit = audit
        self._clock = clock

    async def replay(self, ending: Ending, *, is_rehearsal: bool = False) -> Replayed:
        """Bring this ending about, and record it; a rehearsal only tells what would happen."""
        found = await self._state(ending)
        if found is not Replayed.ENDED or is_rehearsal:
            return found
        if ending.how is How.REVOKED:
            ended = await self._grants.revoke(ending.user_id, ending.account_sub, origin=ORIGIN)
            for grant in ended:
                self._record(ending, grant, "grant_revoked", REPLAYED)
        else:
            for grant in await self._as_google_said(ending):
                kind = ending.record.outcome.removesuffix(":unsettled")
                self._record(ending, grant, "security_event", f"{kind}:{REPLAYED}")
        await self._audit.flush()
        return Replayed.ENDED

    async def _state(self, ending: Ending) -> Replayed:
        """`ENDED` where there is something to end."""
        live = [g for g in await self._grants.list(ending.user_id) if _is_meant(g, ending)]
        standing = [g for g in live if g.stands_since <= ending.record.at]
        if ending.how is How.IN_DOUBT:
            return Replayed.IN_DOUBT if standing else Replayed.ALREADY
        if live and not standing:
            return Replayed.NEWER
        if ending.how is How.REVOKED:
            # It also ends what waits for a confirmation.
            is_over = await self._grants.is_revoked(
                ending.user_id, ending.account_sub, since=ending.record.at
            )
        else:
            is_over = not any(g.status is GrantStatus.ACTIVE for g in standing)
        return Replayed.ALREADY if is_over else Replayed.ENDED

    async def _as_google_said(self, ending: Ending) -> list[Grant]:
        account = ending.account_sub
        assert account is not None  # noqa: S101  (only what is in doubt may lack it)
        async with (
            self._database.exclusively(of_account(account)),
            self._database.transaction() as connection,
        ):
            await self._changes.lock(connection, [account])
            ended = []
            for grant in await self._changes.find_by_account(connection, account):
                is_standing = grant.stands_since <= ending.record.at
                if not _is_meant(grant, ending) or not is_standing:
                    continue
                if ending.how is How.HELD_BACK:
                    await self._changes.hold_back(connection, grant)
                else:
                    reason = ACCOUNT_HIJACKED if ending.is_hijacking else TOKENS_REVOKED
                    await self._changes.erase(connection, grant, reason)
                ended.append(grant)
            return ended

    def _record(self, ending: Ending, grant: Grant, action: str, outcome: str) -> None:
        self._audit.record(
            action=action,
            outcome=outcome,
            caller=ending.record.caller,
            user_id=grant.user_id,
            account_sub=grant.google_sub,
            scopes=grant.scopes,
            request_id=ending.record.request_id,
        )


def _is_meant(grant: Grant, ending: Ending) -> bool:
    return (
        grant.user_id == ending.user_id
        and ending.account_sub in (None, grant.google_sub)
        and grant.status is not GrantStatus.REVOKED
    )
