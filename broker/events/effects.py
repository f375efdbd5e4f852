"""What each security event does to the grants of its account; the table is in docs/operations.md.

Decides; `AccountChanges` carries out. Nothing here asks Google: where its word is older than what
is held, the access tokens are dropped, so that the next request asks.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

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

_SQL = load_queries("broker.events")

TOKENS_REVOKED = "google_tokens_revoked"
ACCOUNT_HIJACKED = "google_account_hijacked"

_SAME_MOMENT = timedelta(seconds=1)
"""Events are dated in whole seconds."""

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


class Effect(StrEnum):
    """What became of a grant, or why nothing did."""

    ERASED = "erased"
    HELD_BACK = "held_back"
    BROUGHT_BACK = "brought_back"
    ASKED_ANEW = "asked_anew"
    UNCHANGED = "unchanged"
    OUTDATED = "outdated"
    NO_GRANT = "no_grant"
    NOTED = "noted"
    NOT_UNDERSTOOD = "not_understood"


@dataclass(frozen=True, slots=True)
class Done:
    """One event's effect on one grant, or on none."""

    kind: EventKind
    effect: Effect
    grant: Grant | None = None
    """As it was before."""
    google_sub: str | None = None


class SecurityEffects:
    """Every method is part of the caller's transaction."""

    def __init__(self, changes: AccountChanges, clock: Clock) -> None:
        self._changes = changes
        self._clock = clock

    async def apply(self, connection: Connection, token: SecurityEventToken) -> Sequence[Done]:
        """Do what the token's events demand, once the accounts they are about are locked."""
        events = sorted(token.events, key=lambda event: _ORDER[event.kind])
        subjects = [event.subject for event in events if event.subject is not None]
        await self._changes.lock(connection, await self._accounts(connection, subjects))
        return [done for event in events for done in await self._apply(connection, token, event)]

    async def _accounts(
        self, connection: Connection, subjects: Iterable[Subject]
    ) -> frozenset[str]:
        accounts = set[str]()
        for subject in subjects:
            if isinstance(subject, AccountSubject):
                accounts.add(subject.sub)
            else:
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
        done = [Done(event.kind, Effect.ERASED, grant) for grant in meant]
        return done or [Done(event.kind, Effect.NO_GRANT)]

    async def _of_account(
        self, connection: Connection, token: SecurityEventToken, event: SecurityEvent, sub: str
    ) -> Sequence[Done]:
        is_outdated = not await self._note_state(connection, token, event, sub)
        if event.kind is not EventKind.ACCOUNT_ENABLED:
            # They are no grants yet: to connect again is less than to trust what may be stolen.
            await self._changes.drop_unconfirmed(connection, sub, token.happened_at)
        grants = await self._changes.find_by_account(connection, sub)
        if event.kind is EventKind.TOKENS_REVOKED:
            # Google ends what an account has granted to one project.
            grants = [grant for grant in grants if _is_project_meant(grant, token.audience)]
        done = []
        for grant in grants:
            effect = await self._change(connection, token, event, grant, is_outdated=is_outdated)
            done.append(Done(event.kind, effect, grant))
        return done or [Done(event.kind, Effect.NO_GRANT, google_sub=sub)]

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
        is_hijacked = event.kind is EventKind.ACCOUNT_DISABLED and event.reason == "hijacking"
        if event.kind is EventKind.TOKENS_REVOKED or is_hijacked:
            if _is_newer(grant, token.happened_at):
                return await self._ask_anew(connection, grant)
            reason = ACCOUNT_HIJACKED if is_hijacked else TOKENS_REVOKED
            await self._changes.erase(connection, grant, reason)
            return Effect.ERASED
        if is_outdated:
            return Effect.OUTDATED
        if event.kind is EventKind.ACCOUNT_ENABLED:
            brought_back = await self._changes.bring_back(connection, grant)
            return Effect.BROUGHT_BACK if brought_back else Effect.UNCHANGED
        if event.kind is EventKind.ACCOUNT_DISABLED and not _is_newer(grant, token.happened_at):
            held_back = await self._changes.hold_back(connection, grant)
            return Effect.HELD_BACK if held_back else Effect.UNCHANGED
        return await self._ask_anew(connection, grant)

    async def _ask_anew(self, connection: Connection, grant: Grant) -> Effect:
        outdated = await self._changes.ask_anew(connection, grant)
        return Effect.ASKED_ANEW if outdated else Effect.UNCHANGED


def _is_newer(grant: Grant, happened_at: datetime) -> bool:
    """Whether a grant was connected after the event, so that the event can't be about it."""
    return grant.status is GrantStatus.ACTIVE and grant.updated_at >= happened_at + _SAME_MOMENT


def _is_project_meant(grant: Grant, audience: Iterable[str]) -> bool:
    return any(_project(grant.client_id) == _project(client_id) for client_id in audience)


def _project(client_id: str) -> str:
    """Google's client ids begin with the number of their project; the oldest are little more."""
    number = re.match(r"([0-9]+)[-.]", client_id)
    return number[1] if number else client_id


def _sub_of(event: SecurityEvent) -> str | None:
    return event.subject.sub if isinstance(event.subject, AccountSubject) else None
