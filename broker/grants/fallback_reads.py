"""Reads grants' rows: the primary's, or the replica's while the primary is away, or hangs.

A replica's answer for a user is not believed while it lacks a change of that user's grants which
this process knows of: a withdrawn grant must not come back to life, nor a new one seem to be none.
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
        if is_from_replica and self._known.is_behind(user_id, _versions(rows)):
            # The primary may be no more than slow.
            return await self._primary.read(query, user_id, self._clock.now())
        return rows

    async def read_many(self, query: str, user_ids: Sequence[str]) -> tuple[Rows, frozenset[str]]:
        """The rows of many users, and those of the users whose rows can't be told.

        Raises `StorageUnavailable` when that is so for all.
        """
        rows, is_from_replica = await self._read(query, list(user_ids))
        if not is_from_replica:
            return rows, frozenset()
        versions = _versions(rows)
        behind = frozenset(
            user_id for user_id in user_ids if self._known.is_behind(user_id, versions)
        )
        if len(behind) == len(set(user_ids)):
            return await self._primary.read(query, list(user_ids), self._clock.now()), frozenset()
        return [row for row in rows if row["user_id"] not in behind], behind

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
    return {UUID(bytes=row["id"].bytes): row["version"] for row in rows}
