"""Applies security events to the grants of their accounts.

The table of effects is in docs/reference/security-events.md. Nothing here calls Google: where an
event may not concern the token in use, the access tokens are deleted, so that the next request
refreshes.
"""

from collections.abc import Sequence

from broker.clock import Clock
from broker.database.database import Connection
from broker.database.queries import load_queries
from broker.google.security_events import (
    AccountSubject,
    EventKind,
    SecurityEvent,
    SecurityEventToken,
    Subject,
    TokenPrefix,
)
from broker.grants.account_grants import AccountGrants
from broker.grants.model import Grant
from broker.security_events.decisions import AppliedEffect, Effect, grant_effect
from broker.security_events.pending_consent_effects import PendingConsentEffects

_SQL = load_queries("broker.security_events")

TOKENS_REVOKED = "google_tokens_revoked"
ACCOUNT_HIJACKED = "google_account_hijacked"

_ORDER = {
    kind: place
    for place, kind in enumerate(
        (
            EventKind.UNKNOWN,
            EventKind.VERIFICATION,
            EventKind.ACCOUNT_ENABLED,
            EventKind.SESSIONS_REVOKED,
            EventKind.CREDENTIAL_CHANGE_REQUIRED,
            EventKind.ACCOUNT_DISABLED,
            EventKind.TOKEN_REVOKED,
            EventKind.TOKENS_REVOKED,
        )
    )
}
"""Events of one token are applied in this order: the gravest last, so that its effect stays."""


class GrantEffects:
    """Applies a token's events. Every method is part of the caller's transaction."""

    def __init__(self, grants: AccountGrants, pending: PendingConsentEffects, clock: Clock) -> None:
        self._grants = grants
        self._pending = pending
        self._clock = clock

    async def apply(
        self, connection: Connection, token: SecurityEventToken
    ) -> Sequence[AppliedEffect]:
        """Lock the accounts that the token's events concern, then apply the events."""
        events = sorted(token.events, key=lambda event: _ORDER[event.kind])
        await self._grants.lock(connection, await self.accounts(connection, token))
        return [done for event in events for done in await self._apply(connection, token, event)]

    async def accounts(self, connection: Connection, token: SecurityEventToken) -> frozenset[str]:
        """Return the accounts that the token concerns, as far as they are known."""
        accounts = set[str]()
        for subject in [event.subject for event in token.events if event.subject is not None]:
            if isinstance(subject, AccountSubject):
                accounts.add(subject.sub)
            else:
                # Pending consents first: one may become a grant meanwhile, never the reverse.
                accounts.update(await self._pending.accounts_of(connection, subject))
                found = await self._find_by_token(connection, subject)
                accounts.update(grant.google_sub for grant in found)
        return frozenset(accounts)

    async def _find_by_token(self, connection: Connection, subject: Subject) -> Sequence[Grant]:
        if isinstance(subject, AccountSubject):
            return ()
        if isinstance(subject, TokenPrefix):
            return await self._grants.find_by_prefix(connection, subject.prefix)
        return await self._grants.find_by_digest(connection, subject.digest)

    async def _apply(
        self, connection: Connection, token: SecurityEventToken, event: SecurityEvent
    ) -> Sequence[AppliedEffect]:
        if event.kind is EventKind.VERIFICATION:
            return [AppliedEffect(event.kind, Effect.NOTED)]
        if event.kind is EventKind.UNKNOWN:
            return [AppliedEffect(event.kind, Effect.NOT_UNDERSTOOD, google_sub=_sub_of(event))]
        if event.kind is EventKind.TOKEN_REVOKED:
            return await self._apply_token_revoked(connection, event)
        if not isinstance(event.subject, AccountSubject):
            return [AppliedEffect(event.kind, Effect.NOT_UNDERSTOOD)]
        return await self._apply_to_account(connection, token, event, event.subject.sub)

    async def _apply_token_revoked(
        self, connection: Connection, event: SecurityEvent
    ) -> Sequence[AppliedEffect]:
        """Erase exactly the token that the event names; it can't concern a newer one."""
        if event.subject is None or isinstance(event.subject, AccountSubject):
            return [AppliedEffect(event.kind, Effect.NOT_UNDERSTOOD, google_sub=_sub_of(event))]
        seen = await self._find_by_token(connection, event.subject)
        for google_sub in sorted({grant.google_sub for grant in seen}):
            await self._grants.find_by_account(connection, google_sub)
        # Again, now that the rows are locked and no refresh can replace the token.
        concerned = await self._find_by_token(connection, event.subject)
        for grant in concerned:
            await self._grants.erase_tokens(connection, grant, TOKENS_REVOKED)
        done = [
            *(AppliedEffect(event.kind, Effect.ERASED, grant) for grant in concerned),
            *await self._pending.end_by_token(connection, event.subject, concerned),
        ]
        return done or [AppliedEffect(event.kind, Effect.NO_GRANT)]

    async def _apply_to_account(
        self, connection: Connection, token: SecurityEventToken, event: SecurityEvent, sub: str
    ) -> Sequence[AppliedEffect]:
        is_outdated = not await self._note_state(connection, token, event, sub)
        given_up_at = await self._grants.given_up_at(connection, sub)
        done = []
        for grant in await self._grants.find_by_account(connection, sub):
            wanted = grant_effect(
                token, event, grant, given_up_at=given_up_at, is_outdated=is_outdated
            )
            if wanted is not None:
                effect = await self._carry_out(connection, event, grant, wanted)
                done.append(AppliedEffect(event.kind, effect, grant))
        done += await self._pending.apply_to_account(
            connection, token, event, sub, given_up_at=given_up_at
        )
        return done or [AppliedEffect(event.kind, Effect.NO_GRANT, google_sub=sub)]

    async def _note_state(
        self, connection: Connection, token: SecurityEventToken, event: SecurityEvent, sub: str
    ) -> bool:
        """Store whether the account is disabled; return False if a newer event has stated that."""
        if event.kind not in (EventKind.ACCOUNT_DISABLED, EventKind.ACCOUNT_ENABLED):
            return True
        noted = await connection.fetchval(
            _SQL["note_account_state"],
            sub,
            event.kind is EventKind.ACCOUNT_DISABLED,
            token.happened_at,
            self._clock.now(),
        )
        return noted is not None

    async def _carry_out(
        self, connection: Connection, event: SecurityEvent, grant: Grant, wanted: Effect
    ) -> Effect:
        """Change the grant; return the effect, or `UNCHANGED` if there was nothing to change."""
        match wanted:
            case Effect.ERASED:
                is_hijacked = event.kind is EventKind.ACCOUNT_DISABLED
                reason = ACCOUNT_HIJACKED if is_hijacked else TOKENS_REVOKED
                await self._grants.erase_tokens(connection, grant, reason)
                is_changed = True
            case Effect.SUSPENDED:
                is_changed = await self._grants.suspend(connection, grant)
            case Effect.RESUMED:
                is_changed = await self._grants.resume(connection, grant)
            case Effect.REFRESH_REQUIRED:
                is_changed = await self._grants.require_refresh(connection, grant)
            case _:
                is_changed = True
        return wanted if is_changed else Effect.UNCHANGED


def _sub_of(event: SecurityEvent) -> str | None:
    return event.subject.sub if isinstance(event.subject, AccountSubject) else None
