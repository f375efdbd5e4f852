"""The recent changes of grants that this process knows of: each grant's latest version and status.

They show whether a database's answer is outdated, because a read replica lags, or because a
failover lost commits. Changes are kept for ten minutes, and their number is bounded.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

import asyncpg

from broker.clock import Clock
from broker.grants.model import Grant, GrantStatus

RETENTION = timedelta(minutes=10)
"""A read replica that lags by more may be believed although its answer is outdated."""

_MAX_CHANGES = 50_000

OnChange = Callable[[str, UUID, int], None]
"""Called with the user id, the grant id and the new version."""


@dataclass(frozen=True, slots=True)
class GrantChange:
    """A grant's version and what else is known of it; a notification carries no status."""

    grant_id: UUID
    user_id: str
    version: int
    heard_at: datetime
    status: GrantStatus | None = None
    reason: str | None = None
    google_sub: str | None = None
    updated_at: datetime | None = None
    """The time of the revocation, for a revoked grant."""
    changed_at: datetime | None = None
    """The database's own timestamp: it distinguishes two changes with one version."""

    @property
    def is_revoked(self) -> bool:
        return self.status is GrantStatus.REVOKED

    @property
    def may_deactivate(self) -> bool:
        """True unless the grant is known to be active, so that tokens may be served."""
        return self.status is not GrantStatus.ACTIVE

    @property
    def _details(self) -> int:
        return (self.status is not None) + (self.changed_at is not None)

    def supersedes(self, known: "GrantChange") -> bool:
        """True if this is a later version than `known`, or has more details of the same one."""
        if self.version != known.version:
            return self.version > known.version
        return self._details > known._details


class RecentChanges:
    """The latest known change of each grant, made by any replica.

    After a failover all changes are suspect, until each is compared with the new primary and
    settled.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._changes: dict[UUID, GrantChange] = {}
        """In the order in which the versions became known."""
        self._suspects: dict[UUID, GrantChange] = {}
        """Changes that a failover may have lost, until each is settled."""
        self._grants_of_user: dict[str, set[UUID]] = {}
        """The grants in either."""
        self._listeners: list[OnChange] = []

    def subscribe(self, listener: OnChange) -> None:
        """Call `listener` once for each new version."""
        self._listeners.append(listener)

    def record_row(self, row: asyncpg.Record) -> None:
        """Record a row of the grants table, which may be known already."""
        self._record(
            GrantChange(
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

    def record_version(self, user_id: str, grant_id: UUID, version: int) -> None:
        """Record a notification, which carries only the version."""
        self._record(GrantChange(grant_id, user_id, version, self._clock.now()))

    def record_own(self, grants: Iterable[Grant]) -> None:
        """Record what this process has just committed; no other process may know of it yet."""
        for grant in grants:
            self._record(
                GrantChange(
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

    def _record(self, change: GrantChange) -> None:
        known = self._changes.get(change.grant_id)
        if known is not None and not change.supersedes(known):
            return
        if known is None or change.version > known.version:
            self._changes.pop(change.grant_id, None)
            self._changes[change.grant_id] = change
            self._grants_of_user.setdefault(change.user_id, set()).add(change.grant_id)
            self._forget_old()
            for listener in self._listeners:
                listener(change.user_id, change.grant_id, change.version)
        else:
            self._changes[change.grant_id] = change

    def start_new_timeline(self) -> Sequence[GrantChange]:
        """Make all changes suspect and return them: after a failover each may be lost."""
        changes = list(self._changes.values())
        self._suspects.update(self._changes)
        self._changes.clear()
        return changes

    def settle(self, change: GrantChange, row: asyncpg.Record | None) -> None:
        """Replace a suspect by the new primary's row of the grant; None if it has no such grant.

        The row is recorded like any other change: a read replica that lags may not have it yet.
        """
        if self._suspects.get(change.grant_id) is not change:
            return
        del self._suspects[change.grant_id]
        if row is not None:
            self.record_row(row)
        elif change.may_deactivate:
            # A server that still has the grant lacks its deactivation.
            self._record(replace(change, heard_at=self._clock.now()))
        self._forget_user_of(change)

    def lacks_deactivation(self, versions: Mapping[UUID, int]) -> bool:
        """True if an answer with these versions lacks a known revocation or security event.

        This holds for the primary too: a failover may have lost the change, or the change was made
        after the answer.
        """
        for grant_id, version in versions.items():
            change = self._changes.get(grant_id)
            if change is not None and version < change.version and change.may_deactivate:
                return True
            if self._may_have_lost_deactivation(grant_id):
                return True
        return False

    def _may_have_lost_deactivation(self, grant_id: UUID) -> bool:
        suspect = self._suspects.get(grant_id)
        return suspect is not None and suspect.may_deactivate

    def has_changed(self, grant: Grant) -> bool:
        """True if a later version is known, or if a failover may have lost the deactivation."""
        change = self._changes.get(grant.id)
        is_later = change is not None and change.version > grant.version
        return is_later or self._may_have_lost_deactivation(grant.id)

    def is_behind(self, user_id: str, versions: Mapping[UUID, int]) -> bool:
        """True if an answer with these versions of the user's live grants lacks a known change.

        Only a grant that is known to be revoked may be missing in the answer.
        """
        return any(
            _lacks(versions, changes[grant_id])
            for grant_id in self._grants_of_user.get(user_id, ())
            for changes in (self._changes, self._suspects)
            if grant_id in changes
        )

    def _forget_old(self) -> None:
        horizon = self._clock.now() - RETENTION
        while self._changes:
            oldest = next(iter(self._changes.values()))
            if oldest.heard_at >= horizon and len(self._changes) <= _MAX_CHANGES:
                return
            del self._changes[oldest.grant_id]
            self._forget_user_of(oldest)

    def _forget_user_of(self, change: GrantChange) -> None:
        """Drop the grant from its user's index if nothing is known of it any more."""
        if change.grant_id in self._changes or change.grant_id in self._suspects:
            return
        grants = self._grants_of_user[change.user_id]
        grants.discard(change.grant_id)
        if not grants:
            del self._grants_of_user[change.user_id]


def _lacks(versions: Mapping[UUID, int], change: GrantChange) -> bool:
    version = versions.get(change.grant_id)
    if version is None:
        return not change.is_revoked
    return version < change.version
