"""The lease on refreshing a grant: one holder among all replicas, for a bounded time, fenced.

A lease is a row, not a lock: no transaction or connection is open during the call to Google.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import asyncpg

from broker.clock import Clock
from broker.database.database import Connection, Database
from broker.database.queries import load_queries
from broker.database.shares import grant_lock

_SQL = load_queries("broker.grants", "refresh_lease.sql")


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to refresh. A later holder has a higher fencing token."""

    grant_id: UUID
    scope_set: str
    fence: int
    """The fencing token."""


@dataclass(frozen=True, slots=True)
class LeaseHeld:
    """The lease is not free."""

    time_left: timedelta
    problem: str | None
    """The problem code, if the last holder failed and all callers have to back off; None while the
    holder refreshes."""


class RefreshLeases:
    """All methods raise `StorageUnavailable` if PostgreSQL is unavailable."""

    def __init__(self, database: Database, clock: Clock) -> None:
        """`clock` is one that all replicas agree on."""
        self._database = database
        self._clock = clock

    def was_unavailable_within(self, seconds: float) -> bool:
        """True if replicas may have refreshed without a lease during the last `seconds`."""
        return self._database.was_unavailable_within(seconds)

    async def acquire(
        self, grant_id: UUID, scope_set: str, *, duration: timedelta
    ) -> Lease | LeaseHeld:
        """Return the lease if it is free, else how long it is not."""
        async with self._database.exclusively(grant_lock(grant_id)):
            now = self._clock.now()
            fence = await self._database.fetchval(
                _SQL["acquire_lease"], grant_id, scope_set, now, now + duration
            )
        if fence is not None:
            return Lease(grant_id, scope_set, fence)
        row = await self._database.fetchrow(_SQL["find_lease"], grant_id, scope_set)
        return lease_held(row, self._clock.now())

    async def is_refreshing_other_scopes(self, grant_id: UUID, scope_set: str) -> bool:
        """True if any replica is refreshing the same grant for other scopes."""
        return bool(
            await self._database.fetchval(
                _SQL["is_refreshing_other_scopes"], grant_id, scope_set, self._clock.now()
            )
        )

    async def release(
        self, lease: Lease, *, back_off: timedelta = timedelta(0), problem: str | None = None
    ) -> None:
        """Release the lease and wake waiting replicas; none acquires it during `back_off`.

        Does nothing if another replica has taken the lease over.
        """
        async with self._database.exclusively(grant_lock(lease.grant_id)):
            await release_lease(
                self._database, lease, ends_at=self._clock.now() + back_off, problem=problem
            )


def lease_held(row: asyncpg.Record | None, now: datetime) -> LeaseHeld:
    """Describe the lease that could not be acquired; without a row it was purged meanwhile."""
    if row is None:
        return LeaseHeld(timedelta(0), None)
    return LeaseHeld(max(row["ends_at"] - now, timedelta(0)), row["trouble"])


async def release_lease(
    connection: Connection | Database,
    lease: Lease,
    *,
    ends_at: datetime,
    problem: str | None = None,
) -> None:
    """Release the lease as part of the caller's transaction, whose commit wakes the replicas."""
    await connection.execute(
        _SQL["release_lease"], lease.grant_id, lease.scope_set, lease.fence, ends_at, problem
    )


async def is_lease_holder(connection: Connection, lease: Lease) -> bool:
    """True if the lease was not taken over, and is not until the caller's transaction ends."""
    return bool(
        await connection.fetchval(
            _SQL["is_lease_holder"], lease.grant_id, lease.scope_set, lease.fence
        )
    )
