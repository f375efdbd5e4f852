"""What this process has heard of changes to grants lately: each grant's latest version and status.

By it, an answer of a database that lags behind, or that lost commits in a failover, is told from
one that can be believed. It forgets after ten minutes, and never holds more than a bounded number.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

import asyncpg

from broker.clock import Clock
from broker.grants.model import Grant, GrantStatus

KEPT = timedelta(minutes=10)
"""A read replica that lags by more than this may be believed although it is outdated."""

_KNOWN_AT_MOST = 50_000

OnChange = Callable[[str, UUID, int], None]
"""Called with the user id, the grant and its new version."""


@dataclass(frozen=True, slots=True)
class KnownChange:
    """A grant's version, and what is known of it besides; a notification tells no status."""

    grant_id: UUID
    user_id: str
    version: int
    heard_at: datetime
    status: GrantStatus | None = None
    reason: str | None = None
    google_sub: str | None = None
    updated_at: datetime | None = None
    """When it was revoked, if it is."""
    changed_at: datetime | None = None
    """The database's own stamp: of two changes with one version it tells which is meant."""

    @property
    def is_revoked(self) -> bool:
        return self.status is GrantStatus.REVOKED

    @property
    def may_end(self) -> bool:
        """Whether nobody may get a token after this change, for all that is known of it."""
        return self.status is not GrantStatus.ACTIVE

    @property
    def _details(self) -> int:
        return (self.status is not None) + (self.changed_at is not None)

    def supersedes(self, known: "KnownChange") -> bool:
        """Whether this is a later version than `known`, or tells more of the same one."""
        if self.version != known.version:
            return self.version > known.version
        return self._details > known._details


class KnownChanges:
    """The latest change heard of for each grant, whoever made it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._changes: dict[UUID, KnownChange] = {}
        """In the order in which the versions were first heard of."""
        self._suspects: dict[UUID, KnownChange] = {}
        """What a failover may have lost, until it is settled."""
        self._of_user: dict[str, set[UUID]] = {}
        """The grants in either."""
        self._listeners: list[OnChange] = []

    def subscribe(self, listener: OnChange) -> None:
        """Have each new version passed on, once."""
        self._listeners.append(listener)

    def note_row(self, row: asyncpg.Record) -> None:
        """A row of the grants table that may be news."""
        self._note(
            KnownChange(
                UUID(bytes=row["id"].bytes),
                row["user_id"],
                row["version"],
                self._clock.now(),
                GrantStatus(row["status"]),
                row["reason"],
                row["google_sub"],
                row["updated_at"],
                row["changed_at"],
            )
        )

    def note_version(self, user_id: str, grant_id: UUID, version: int) -> None:
        """A notification, which tells no more."""
        self._note(KnownChange(grant_id, user_id, version, self._clock.now()))

    def note_own(self, grants: Iterable[Grant]) -> None:
        """What this process has just committed, before anybody else can have heard of it."""
        for grant in grants:
            self._note(
                KnownChange(
                    grant.id,
                    grant.user_id,
                    grant.version,
                    self._clock.now(),
                    grant.status,
                    grant.reason,
                    grant.google_sub,
                    grant.updated_at,
                )
            )

    def _note(self, change: KnownChange) -> None:
        known = self._changes.get(change.grant_id)
        if known is not None and not change.supersedes(known):
            return
        if known is None or change.version > known.version:
            self._changes.pop(change.grant_id, None)
            self._changes[change.grant_id] = change
            self._of_user.setdefault(change.user_id, set()).add(change.grant_id)
            self._forget_old()
            for listener in self._listeners:
                listener(change.user_id, change.grant_id, change.version)
        else:
            self._changes[change.grant_id] = change

    def take_all(self) -> Sequence[KnownChange]:
        """All of it, which stays suspect until settled: another history of the grants has begun."""
        changes = list(self._changes.values())
        self._suspects.update(self._changes)
        self._changes.clear()
        return changes

    def settle(self, change: KnownChange, row: asyncpg.Record | None) -> None:
        """What the new primary has of this grant counts from now on; no row is no grant.

        That is known as any other change is: a read replica that lags may still be without it.
        """
        if self._suspects.get(change.grant_id) is not change:
            return
        del self._suspects[change.grant_id]
        if row is not None:
            self.note_row(row)
        elif change.may_end:
            # Whoever still has the grant has not heard of its end.
            self._note(replace(change, heard_at=self._clock.now()))
        self._forget_user_of(change)

    def lacks_an_end(self, versions: Mapping[UUID, int]) -> bool:
        """Whether an answer with these grants lacks a known revocation or security event.

        Even the primary's may: a failover may have lost it, or the answer was overtaken by it.
        """
        for grant_id, version in versions.items():
            change = self._changes.get(grant_id)
            if change is not None and version < change.version and change.may_end:
                return True
            if self._may_have_lost_its_end(grant_id):
                return True
        return False

    def _may_have_lost_its_end(self, grant_id: UUID) -> bool:
        suspect = self._suspects.get(grant_id)
        return suspect is not None and suspect.may_end

    def has_changed(self, grant: Grant) -> bool:
        """Whether a later version of it is known, or a failover may have lost its end."""
        change = self._changes.get(grant.id)
        is_later = change is not None and change.version > grant.version
        return is_later or self._may_have_lost_its_end(grant.id)

    def is_behind(self, user_id: str, versions: Mapping[UUID, int]) -> bool:
        """Whether an answer with these versions of the user's live grants lacks a known change.

        A grant that is known to be revoked may be missing in it, no other.
        """
        return any(
            _lacks(versions, changes[grant_id])
            for grant_id in self._of_user.get(user_id, ())
            for changes in (self._changes, self._suspects)
            if grant_id in changes
        )

    def _forget_old(self) -> None:
        horizon = self._clock.now() - KEPT
        while self._changes:
            oldest = next(iter(self._changes.values()))
            if oldest.heard_at >= horizon and len(self._changes) <= _KNOWN_AT_MOST:
                return
            del self._changes[oldest.grant_id]
            self._forget_user_of(oldest)

    def _forget_user_of(self, change: KnownChange) -> None:
        """Where nothing is known of the grant any more."""
        if change.grant_id in self._changes or change.grant_id in self._suspects:
            return
        grants = self._of_user[change.user_id]
        grants.discard(change.grant_id)
        if not grants:
            del self._of_user[change.user_id]


def _lacks(versions: Mapping[UUID, int], change: KnownChange) -> bool:
    version = versions.get(change.grant_id)
    if version is None:
        return not change.is_revoked
    return version < change.version
