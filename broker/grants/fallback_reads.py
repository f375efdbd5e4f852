"""Reads grants' rows: the primary's, or the replica's while the primary is away, or hangs.

A replica's answer for a user is not believed while it lacks a change of that user's grants which
this process knows of: a withdrawn grant must not come back to life, nor a new one seem to be none.
Nor is the primary's while it lacks the end of a grant, as one does that was promoted without it.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from uuid import UUID

import asyncpg

from broker.clock import Clock
from broker.database.database import Database, StorageUnavailable
from broker.grants.known_changes import KnownChanges

_PATIENCE_SECONDS = 0.5
"""How long the primary is waited for, if there is a replica that can be read instead."""

Rows = Sequence[asyncpg.Record]


class FallbackReads:
    """For queries that take whose grants are asked for, and the time."""

    def __init__(
        self, primary: Database, replica: Database | None, clock: Clock, known: KnownChanges
    ) -> None:
        self._known = known
        self._primary = primary
        self._replica = replica
        self._clock = clock

    async def read(self, query: str, user_id: str) -> Rows:
        """One user's rows. Raises `StorageUnavailable` when nobody answers who can be believed."""
        rows, is_from_replica = await self._read(query, user_id)
        versions = _versions(rows)
        is_behind = is_from_replica and self._known.is_behind(user_id, versions)
        if not is_behind and not self._known.lacks_an_end(versions):
            return rows
        # The primary may be no more than slow, or was asked just before the change.
        rows = await self._primary.read(query, user_id, self._clock.now())
        if self._known.lacks_an_end(_versions(rows)):
            raise StorageUnavailable("the primary lacks the end of a grant: it was failed over to")
        return rows

    async def read_many(self, query: str, user_ids: Sequence[str]) -> tuple[Rows, frozenset[str]]:
        """The rows of many users, and those of the users whose rows can't be told.

        Raises `StorageUnavailable` when nobody answers.
        """
        rows, is_from_replica = await self._read(query, list(user_ids))
        untold = self._untold(rows, user_ids, is_from_replica=is_from_replica)
        if is_from_replica and len(untold) == len(set(user_ids)):
            rows = await self._primary.read(query, list(user_ids), self._clock.now())
            untold = self._untold(rows, user_ids, is_from_replica=False)
        return [row for row in rows if row["user_id"] not in untold], untold

    def _untold(
        self, rows: Rows, user_ids: Sequence[str], *, is_from_replica: bool
    ) -> frozenset[str]:
        """Those whose rows can't be believed."""
        lacking = {row["user_id"] for row in rows if self._known.lacks_an_end(_versions([row]))}
        if not is_from_replica:
            return frozenset(lacking)
        versions = _versions(rows)
        return frozenset(
            user_id
            for user_id in user_ids
            if user_id in lacking or self._known.is_behind(user_id, versions)
        )

    async def _read(self, query: str, who: str | Sequence[str]) -> tuple[Rows, bool]:
        """The rows, and whether they are the replica's."""
        now = self._clock.now()
        if self._replica is None:
            return await self._primary.read(query, who, now), False
        if not self._primary.is_doubtful:
            with suppress(StorageUnavailable):
                patience = _PATIENCE_SECONDS
                return await self._primary.read(query, who, now, patience_seconds=patience), False
        with suppress(StorageUnavailable):
            return await self._replica.read(query, who, now), True
        return await self._primary.read(query, who, now), False


def _versions(rows: Rows) -> Mapping[UUID, int]:
    # The driver's own kind of UUID is equal to the standard one, and has the same hash.
    return {row["id"]: row["version"] for row in rows}
