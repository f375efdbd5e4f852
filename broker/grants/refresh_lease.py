"""Who among all replicas asks Google for a token: one at a time, for a bounded time, fenced.

A lease is a row, not a lock: no transaction or connection is held while Google is asked.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from broker.clock import Clock
from broker.database.database import Connection, Database
from broker.database.queries import load_queries
from broker.database.shares import of_grant

_SQL = load_queries("broker.grants")


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to ask Google. Whoever takes it over later has a higher fence."""

    grant_id: UUID
    held_under: str
    fence: int


@dataclass(frozen=True, slots=True)
class Busy:
    """Somebody else has the lease."""

    time_left: timedelta
    trouble: str | None
    """A problem's code, if the last holder failed and all are to wait; nothing while it asks."""


class RefreshLeases:
    """All methods raise `StorageUnavailable` when PostgreSQL is away."""

    def __init__(self, database: Database, clock: Clock) -> None:
        """`clock` is one that all replicas agree on."""
        self._database = database
        self._clock = clock

    def were_away_within(self, seconds: float) -> bool:
        """Whether turns could not be taken so short a while ago, so that others went without."""
        return self._database.was_away_within(seconds)

    async def take(self, grant_id: UUID, held_under: str, *, lasting: timedelta) -> Lease | Busy:
        """The lease, if nobody has it."""
        async with self._database.exclusively(of_grant(grant_id)):
            now = self._clock.now()
            fence = await self._database.fetchval(
                _SQL["take_lease"], grant_id, held_under, now, now + lasting
            )
        if fence is not None:
            return Lease(grant_id, held_under, fence)
        row = await self._database.fetchrow(_SQL["find_lease"], grant_id, held_under)
        if row is None:
            return Busy(timedelta(0), None)
        return Busy(max(row["ends_at"] - self._clock.now(), timedelta(0)), row["trouble"])

    async def are_others_out(self, grant_id: UUID, held_under: str) -> bool:
        """Whether somebody, anywhere, is refreshing the same grant for other scopes."""
        return bool(
            await self._database.fetchval(
                _SQL["others_refresh"], grant_id, held_under, self._clock.now()
            )
        )

    async def end(
        self, lease: Lease, *, pause: timedelta = timedelta(0), trouble: str | None = None
    ) -> None:
        """Give the lease up and wake those who wait; with a pause, nobody asks before it is over.

        Nothing happens if it was taken over already.
        """
        async with self._database.exclusively(of_grant(lease.grant_id)):
            await end_lease(
                self._database, lease, ends_at=self._clock.now() + pause, trouble=trouble
            )


async def end_lease(
    connection: Connection | Database,
    lease: Lease,
    *,
    ends_at: datetime,
    trouble: str | None = None,
) -> None:
    """The same as part of the caller's transaction, whose commit wakes those who wait."""
    await connection.execute(
        _SQL["end_lease"], lease.grant_id, lease.held_under, lease.fence, ends_at, trouble
    )
