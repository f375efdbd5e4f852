"""Reads grants' rows: the primary's, or the replica's while the primary is away, or hangs.

A replica that has not heard of a change which this process knows of is not believed.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from uuid import UUID

import asyncpg

from broker.clock import Clock
from broker.database.database import Database, StorageUnavailable

_PATIENCE_SECONDS = 0.5
"""How long the primary is waited for, if there is a replica that can be read instead."""


class FallbackReads:
    """For queries that take whose grants are asked for, and the time."""

    def __init__(self, primary: Database, replica: Database | None, clock: Clock) -> None:
        self.is_outdated: Callable[[UUID, int], bool] = _not_known_to_be
        """Told a grant and the version that the replica has: whether there was a later one."""
        self._primary = primary
        self._replica = replica
        self._clock = clock

    async def read(self, query: str, who: str | Sequence[str]) -> Sequence[asyncpg.Record]:
        """Raises `StorageUnavailable` when neither answers."""
        now = self._clock.now()
        if self._replica is None:
            return await self._primary.read(query, who, now)
        if not self._primary.is_doubtful:
            with suppress(StorageUnavailable):
                return await self._primary.read(query, who, now, patience_seconds=_PATIENCE_SECONDS)
        with suppress(StorageUnavailable):
            rows = await self._replica.read(query, who, now)
            if not self._is_behind(rows):
                return rows
        # The primary may be no more than slow.
        return await self._primary.read(query, who, now)

    def _is_behind(self, rows: Sequence[asyncpg.Record]) -> bool:
        """Whether the replica had not heard of a change when it was read: a grant that was
        withdrawn must not come back to life.
        """
        return any(self.is_outdated(UUID(bytes=row["id"].bytes), row["version"]) for row in rows)


def _not_known_to_be(_grant_id: UUID, _version: int) -> bool:
    """Nobody keeps track."""
    return False
