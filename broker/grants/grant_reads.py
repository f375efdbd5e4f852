"""Reads grants from the primary, or from the read replica while the primary does not respond.

A read replica's answer for a user is rejected if it lacks a change of that user's grants that this
process knows of: a revoked grant must not come back to life, and a new one must not be missing. The
primary's answer is rejected if it lacks a grant's deactivation, as after a failover that lost it.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from uuid import UUID

import asyncpg

from broker.clock import Clock
from broker.database.database import Database, StorageUnavailable
from broker.grants.recent_changes import RecentChanges

_PRIMARY_SECONDS = 0.5
"""How long a read waits for the primary if there is a read replica."""

Rows = Sequence[asyncpg.Record]


class GrantReads:
    """Runs queries whose parameters are one or several user ids, and the time."""

    def __init__(
        self,
        primary: Database,
        read_replica: Database | None,
        clock: Clock,
        recent_changes: RecentChanges,
    ) -> None:
        self._recent_changes = recent_changes
        self._primary = primary
        self._read_replica = read_replica
        self._clock = clock

    async def read(self, query: str, user_id: str) -> Rows:
        """Return one user's rows. Raises `StorageUnavailable` if no server has a current answer."""
        rows, is_from_replica = await self._read(query, user_id)
        versions = _versions(rows)
        is_behind = is_from_replica and self._recent_changes.is_behind(user_id, versions)
        if not is_behind and not self._recent_changes.lacks_deactivation(versions):
            return rows
        # The primary may only be slow, or may have been read just before the change.
        rows = await self._primary.read(query, user_id, self._clock.now())
        if self._recent_changes.lacks_deactivation(_versions(rows)):
            raise StorageUnavailable("a failover lost a revocation or a security event")
        return rows

    async def read_many(self, query: str, user_ids: Sequence[str]) -> tuple[Rows, frozenset[str]]:
        """Return the rows of many users, and the users for which no server has a current answer.

        Raises `StorageUnavailable` if no server answers.
        """
        rows, is_from_replica = await self._read(query, list(user_ids))
        unknown = self._unknown(rows, user_ids, is_from_replica=is_from_replica)
        if is_from_replica and len(unknown) == len(set(user_ids)):
            rows = await self._primary.read(query, list(user_ids), self._clock.now())
            unknown = self._unknown(rows, user_ids, is_from_replica=False)
        return [row for row in rows if row["user_id"] not in unknown], unknown

    def _unknown(
        self, rows: Rows, user_ids: Sequence[str], *, is_from_replica: bool
    ) -> frozenset[str]:
        """Return the users whose rows are outdated."""
        outdated = {
            row["user_id"]
            for row in rows
            if self._recent_changes.lacks_deactivation(_versions([row]))
        }
        if not is_from_replica:
            return frozenset(outdated)
        versions = _versions(rows)
        return frozenset(
            user_id
            for user_id in user_ids
            if user_id in outdated or self._recent_changes.is_behind(user_id, versions)
        )

    async def _read(self, query: str, users: str | Sequence[str]) -> tuple[Rows, bool]:
        """Return the rows, and whether they are the read replica's."""
        now = self._clock.now()
        if self._read_replica is None:
            return await self._primary.read(query, users, now), False
        if not self._primary.is_suspected:
            with suppress(StorageUnavailable):
                seconds = _PRIMARY_SECONDS
                return await self._primary.read(query, users, now, timeout_seconds=seconds), False
        with suppress(StorageUnavailable):
            return await self._read_replica.read(query, users, now), True
        return await self._primary.read(query, users, now), False


def _versions(rows: Rows) -> Mapping[UUID, int]:
    # The driver's UUID type equals the standard one, and has the same hash.
    return {row["id"]: row["version"] for row in rows}
