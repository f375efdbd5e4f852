"""What each security event does to the grants of its account; the table is in docs/operations.md.

Decides; `AccountChanges` carries out. Nothing here asks Google: where its word may not be about
what is held, the access tokens are dropped, so that the next request asks.
"""

from collections.abc import Sequence
from datetime import datetime

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
from broker.grants.account_changes import AccountChanges
from broker.grants.model import Grant, GrantStatus
from broker.security_events.bearing import is_doubtful, is_newer, is_project_meant
from broker.security_events.outcomes import Done, Effect
from broker.security_events.waiting_effects import WaitingEffects

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
"""Of the events in one token the gravest comes last, and so has the last word."""


class SecurityEffects:
    """Every method is part of the caller's transaction."""

    def __init__(self, changes: AccountChanges, waiting: WaitingEffects, clock: Clock) -> None:
        self._changes = changes
        self._waiting = waiting
        self._clock = clock

    async def apply(self, connection: Connection, token: SecurityEventToken) -> Sequence[Done]:
        """Do what the token's events demand, once the accounts they are about are locked."""
        events = sorted(token.events, key=lambda event: _ORDER[event.kind])
        await self._changes.lock(connection, await self.accounts(connection, token))
        return [done for event in events for done in await self._apply(connection, token, event)]

    async def accounts(self, connection: Connection, token: SecurityEventToken) -> frozenset[str]:
        """The accounts that it is about, as far as they can be told."""
        accounts = set[str]()
        for subject in [event.subject for event in token.events if event.subject is not None]:
            if isinstance(subject, AccountSubject):
                accounts.add(subject.sub)
            else:
                # First what waits: it may become a grant, but no grant waits again.
                accounts.update(await self._waiting.accounts_of(connection, subject))
                found = await self._find_by_token(connection, subject)
                accounts.update(grant.google_sub for grant in found)
        return frozenset(accounts)

    async def _find_by_token(self, connection: Connection, subject: Subject) -> Sequence[Grant]:
        if isinstance(subject, AccountSubject):
            return ()
        if isinstance(subject, TokenPrefix):
            return await self._changes.find_by_prefix(connection, subject.prefix)
        return await self._changes.find_by_digest(connection, subject.digest)

    async def _apply(
        self, connection: Connection, token: SecurityEventToken, event: SecurityEvent
    ) -> Sequence[Done]:
        if event.kind is EventKind.VERIFICATION:
            return [Done(event.kind, Effect.NOTED)]
        if event.kind is EventKind.UNKNOWN:
            return [Done(event.kind, Effect.NOT_UNDERSTOOD, google_sub=_sub_of(event))]
        if event.kind is EventKind.TOKEN_REVOKED:
            return await self._token_revoked(connection, event)
        if not isinstance(event.subject, AccountSubject):
            return [Done(event.kind, Effect.NOT_UNDERSTOOD)]
        return await self._of_account(connection, token, event, event.subject.sub)

    async def _token_revoked(self, connection: Connection, event: SecurityEvent) -> Sequence[Done]:
        """Names the very token, so that nothing newer can be meant."""
        if event.subject is None or isinstance(event.subject, AccountSubject):
            return [Done(event.kind, Effect.NOT_UNDERSTOOD, google_sub=_sub_of(event))]
        seen = await self._find_by_token(connection, event.subject)
        for google_sub in sorted({grant.google_sub for grant in seen}):
            await self._changes.find_by_account(connection, google_sub)
        # Again, now that no refresh can put another token in its place.
        meant = await self._find_by_token(connection, event.subject)
        for grant in meant:
            await self._changes.erase(connection, grant, TOKENS_REVOKED)
        done = [
            *(Done(event.kind, Effect.ERASED, grant) for grant in meant),
            *await self._waiting.end_by_token(connection, event.subject, meant),
        ]
        return done or [Done(event.kind, Effect.NO_GRANT)]

    async def _of_account(
        self, connection: Connection, token: SecurityEventToken, event: SecurityEvent, sub: str
    ) -> Sequence[Done]:
        is_outdated = not await self._note_state(connection, token, event, sub)
        given_up_at = await self._changes.given_up_at(connection, sub)
        grants = await self._changes.find_by_account(connection, sub)
        done = []
        for grant in grants:
            if event.kind is EventKind.TOKENS_REVOKED:
                if not is_project_meant(grant.client_id, token.audience):
                    continue
                effect = await self._tokens_revoked(connection, token, grant, given_up_at)
            else:
                effect = await self._change(
                    connection, token, event, grant, is_outdated=is_outdated
                )
            done.append(Done(event.kind, effect, grant))
        done += await self._waiting.of_account(
            connection, token, event, sub, given_up_at=given_up_at
        )
        return done or [Done(event.kind, Effect.NO_GRANT, google_sub=sub)]

    async def _tokens_revoked(
        self,
        connection: Connection,
        token: SecurityEventToken,
        grant: Grant,
        given_up_at: datetime | None,
    ) -> Effect:
        is_active = grant.status is GrantStatus.ACTIVE
        if is_active and is_doubtful(grant.stands_since, given_up_at, token):
            return await self._ask_anew(connection, grant)
        await self._changes.erase(connection, grant, TOKENS_REVOKED)
        return Effect.ERASED

    async def _note_state(
        self, connection: Connection, token: SecurityEventToken, event: SecurityEvent, sub: str
    ) -> bool:
        """False if something newer was told of whether the account is disabled."""
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

    async def _change(
        self,
        connection: Connection,
        token: SecurityEventToken,
        event: SecurityEvent,
        grant: Grant,
        *,
        is_outdated: bool,
    ) -> Effect:
        was_connected_after = grant.status is GrantStatus.ACTIVE and is_newer(
            grant.stands_since, token
        )
        if event.kind is EventKind.ACCOUNT_DISABLED and event.reason == "hijacking":
            if was_connected_after:
                return await self._ask_anew(connection, grant)
            await self._changes.erase(connection, grant, ACCOUNT_HIJACKED)
            return Effect.ERASED
        if is_outdated:
            return Effect.OUTDATED
        if event.kind is EventKind.ACCOUNT_ENABLED:
            brought_back = await self._changes.bring_back(connection, grant)
            return Effect.BROUGHT_BACK if brought_back else Effect.UNCHANGED
        if event.kind is EventKind.ACCOUNT_DISABLED and not was_connected_after:
            held_back = await self._changes.hold_back(connection, grant)
            return Effect.HELD_BACK if held_back else Effect.UNCHANGED
        return await self._ask_anew(connection, grant)

    async def _ask_anew(self, connection: Connection, grant: Grant) -> Effect:
        outdated = await self._changes.ask_anew(connection, grant)
        return Effect.ASKED_ANEW if outdated else Effect.UNCHANGED


def _sub_of(event: SecurityEvent) -> str | None:
    return event.subject.sub if isinstance(event.subject, AccountSubject) else None
