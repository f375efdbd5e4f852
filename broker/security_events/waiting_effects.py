"""What each security event does to the consents that wait for their confirmation.

They are no grants yet: to connect again is less than to trust what may be stolen, so that all but
good news ends them.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime

from broker.database.database import Connection
from broker.google.security_events import (
    EventKind,
    SecurityEvent,
    SecurityEventToken,
    TokenDigest,
    TokenPrefix,
)
from broker.grants.model import Grant
from broker.grants.pending.changes import WaitingChanges
from broker.grants.pending.rows import PendingConsent
from broker.security_events.bearing import is_doubtful, is_newer, is_project_meant
from broker.security_events.outcomes import Done, Effect


class WaitingEffects:
    """Every method is part of the caller's transaction."""

    def __init__(self, changes: WaitingChanges) -> None:
        self._changes = changes

    async def accounts_of(
        self, connection: Connection, subject: TokenPrefix | TokenDigest
    ) -> frozenset[str]:
        """Of which accounts something waits with that token; not locked."""
        found = await self._find_by_token(connection, subject)
        return frozenset(waiting.google_sub for waiting in found)

    async def end_by_token(
        self,
        connection: Connection,
        subject: TokenPrefix | TokenDigest,
        erased: Iterable[Grant],
    ) -> Sequence[Done]:
        """Those with that token, and those that counted on the token of a grant that it was of."""
        found = {each.link_id: each for each in await self._find_by_token(connection, subject)}
        for grant in erased:
            for each in await self._changes.find_by_grant(connection, grant):
                found[each.link_id] = each
        await self._changes.end(connection, found.values(), at_google=False)
        return [_ended(EventKind.TOKEN_REVOKED, each) for each in found.values()]

    async def of_account(
        self,
        connection: Connection,
        token: SecurityEventToken,
        event: SecurityEvent,
        sub: str,
        *,
        given_up_at: datetime | None,
    ) -> Sequence[Done]:
        """Those of an account that something happened to."""
        if event.kind is EventKind.ACCOUNT_ENABLED:
            return []
        done, ended = [], []
        for waiting in await self._changes.find_by_account(connection, sub):
            if event.kind is not EventKind.TOKENS_REVOKED:
                is_spared = is_newer(waiting.created_at, token)
            elif is_project_meant(waiting.client_id, token.audience):
                is_spared = is_doubtful(waiting.created_at, given_up_at, token)
            else:
                continue
            if is_spared:
                done.append(await self._ask_anew(connection, event.kind, waiting))
            else:
                ended.append(waiting)
                done.append(_ended(event.kind, waiting))
        # Of tokens that it revoked Google knows; of all else it tells while they go on working.
        is_told = event.kind is not EventKind.TOKENS_REVOKED
        await self._changes.end(connection, ended, at_google=is_told)
        return done

    async def _ask_anew(
        self, connection: Connection, kind: EventKind, waiting: PendingConsent
    ) -> Done:
        had_one = await self._changes.ask_anew(connection, waiting)
        return Done(kind, Effect.ASKED_ANEW if had_one else Effect.UNCHANGED, waiting.as_grant())

    async def _find_by_token(
        self, connection: Connection, subject: TokenPrefix | TokenDigest
    ) -> Sequence[PendingConsent]:
        if isinstance(subject, TokenPrefix):
            return await self._changes.find_by_prefix(connection, subject.prefix)
        return await self._changes.find_by_digest(connection, subject.digest)


def _ended(kind: EventKind, waiting: PendingConsent) -> Done:
    return Done(kind, Effect.CONSENT_ENDED, waiting.as_grant())
