"""Applies security events to pending consents."""

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
from broker.grants.pending_consents.model import PendingConsent
from broker.grants.pending_consents.table import AccountPendingConsents
from broker.security_events.decisions import AppliedEffect, Effect, pending_consent_effect


class PendingConsentEffects:
    """Applies events to pending consents. Every method is part of the caller's transaction."""

    def __init__(self, consents: AccountPendingConsents) -> None:
        self._consents = consents

    async def accounts_of(
        self, connection: Connection, subject: TokenPrefix | TokenDigest
    ) -> frozenset[str]:
        """Return the accounts of pending consents with that token; nothing is locked."""
        found = await self._find_by_token(connection, subject)
        return frozenset(pending.google_sub for pending in found)

    async def end_by_token(
        self,
        connection: Connection,
        subject: TokenPrefix | TokenDigest,
        erased: Iterable[Grant],
    ) -> Sequence[AppliedEffect]:
        """Delete the consents with that token, and those that rely on an erased grant's token."""
        found = {each.link_id: each for each in await self._find_by_token(connection, subject)}
        for grant in erased:
            for each in await self._consents.find_by_grant(connection, grant):
                found[each.link_id] = each
        await self._consents.delete(connection, found.values(), revoke_at_google=False)
        return [_ended(EventKind.TOKEN_REVOKED, each) for each in found.values()]

    async def apply_to_account(
        self,
        connection: Connection,
        token: SecurityEventToken,
        event: SecurityEvent,
        sub: str,
        *,
        given_up_at: datetime | None,
    ) -> Sequence[AppliedEffect]:
        """Apply an account's event to the account's pending consents."""
        if event.kind is EventKind.ACCOUNT_ENABLED:
            return []
        done, ended = [], []
        for pending in await self._consents.find_by_account(connection, sub):
            wanted = pending_consent_effect(
                token,
                event,
                client_id=pending.client_id,
                created_at=pending.created_at,
                given_up_at=given_up_at,
            )
            if wanted is Effect.REFRESH_REQUIRED:
                done.append(await self._require_refresh(connection, event.kind, pending))
            elif wanted is not None:
                ended.append(pending)
                done.append(_ended(event.kind, pending))
        # Google knows of the tokens that it revoked. All others still work until they are revoked.
        revoke_at_google = event.kind is not EventKind.TOKENS_REVOKED
        await self._consents.delete(connection, ended, revoke_at_google=revoke_at_google)
        return done

    async def _require_refresh(
        self, connection: Connection, kind: EventKind, pending: PendingConsent
    ) -> AppliedEffect:
        had_token = await self._consents.require_refresh(connection, pending)
        effect = Effect.REFRESH_REQUIRED if had_token else Effect.UNCHANGED
        return AppliedEffect(kind, effect, pending.as_grant())

    async def _find_by_token(
        self, connection: Connection, subject: TokenPrefix | TokenDigest
    ) -> Sequence[PendingConsent]:
        if isinstance(subject, TokenPrefix):
            return await self._consents.find_by_prefix(connection, subject.prefix)
        return await self._consents.find_by_digest(connection, subject.digest)


def _ended(kind: EventKind, pending: PendingConsent) -> AppliedEffect:
    return AppliedEffect(kind, Effect.CONSENT_ENDED, pending.as_grant())
