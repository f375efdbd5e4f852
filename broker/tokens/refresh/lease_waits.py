"""Refresh leases as this replica uses them: acquire, wait for another replica, release.

A lease that is released spares the other replicas a wait until it expires.
"""

import asyncio
import logging
from collections.abc import Mapping
from datetime import timedelta
from typing import Final
from uuid import UUID

from broker.database.database import StorageUnavailable
from broker.grants.refresh_lease import Lease, LeaseHeld, RefreshLeases
from broker.tokens.refresh.google_calls import CALL_TIMEOUT, RefreshKey
from broker.tokens.results import Denial, NotGranted, Outage, Unavailable

logger = logging.getLogger(__name__)

LEASE = CALL_TIMEOUT + timedelta(seconds=3)
"""Outlives the call and the write; after it, another replica takes over."""

_RECHECK_SECONDS = 0.5
"""How long to wait for a notification before the table is read again: notifications get lost."""

_SETTLING_SECONDS = 5.0
"""How long after an outage of PostgreSQL other replicas may still have refreshes to write: until
then, a refused refresh token may be one that was replaced meanwhile."""


class Wakeups:
    """Wakes the requests that wait for another replica's refresh of a grant."""

    def __init__(self) -> None:
        self._waiting: dict[UUID, set[asyncio.Event]] = {}

    def wake(self, grant_id: UUID) -> None:
        """End the waits: the grant's refresh has ended, or the grant has changed."""
        for event in self._waiting.get(grant_id, ()):
            event.set()

    async def wait(self, grant_id: UUID, *, seconds: float) -> None:
        """Return when the grant's refresh ends, or after the seconds."""
        event = asyncio.Event()
        self._waiting.setdefault(grant_id, set()).add(event)
        try:
            async with asyncio.timeout(seconds):
                await event.wait()
        except TimeoutError:
            return
        finally:
            waiting = self._waiting[grant_id]
            waiting.discard(event)
            if not waiting:
                del self._waiting[grant_id]


class ReplicaLeases:
    """The exclusive right to refresh, among all replicas, one grant and scope set."""

    def __init__(self, leases: RefreshLeases, wakeups: Wakeups) -> None:
        self._leases = leases
        self._wakeups = wakeups

    async def acquire(self, key: RefreshKey) -> Lease | LeaseHeld:
        """Return the lease, or who holds it. Raises `StorageUnavailable`."""
        return await self._leases.acquire(*key, duration=LEASE)

    async def wait_for_other_replica(self, key: RefreshKey, held: LeaseHeld) -> None:
        """Return when the holder's refresh may have ended."""
        seconds = min(max(held.time_left.total_seconds(), 0.01), _RECHECK_SECONDS)
        await self._wakeups.wait(key[0], seconds=seconds)

    async def wait_for_other_scopes(self, key: RefreshKey, lease: Lease | None) -> None:
        """Return when no other refresh of this grant, for other scopes, is in progress.

        One may have replaced the refresh token that Google has just refused, and not have written
        it yet: then the refusal says nothing about the grant. Raises `StorageUnavailable`.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + LEASE.total_seconds()
        while await self._leases.is_refreshing_other_scopes(*key) and loop.time() < until:
            # Otherwise two refreshes that are both refused would wait for each other.
            await self.release(lease)
            await self._wakeups.wait(key[0], seconds=_RECHECK_SECONDS)

    def may_be_unsettled(self) -> bool:
        """True soon after an outage, in which replicas refreshed without leases."""
        return self._leases.was_unavailable_within(_SETTLING_SECONDS)

    async def release(
        self,
        lease: Lease | None,
        *,
        refusal: NotGranted | Unavailable | None = None,
        pause: timedelta = timedelta(0),
    ) -> None:
        """Release a lease and wake the others; if a refusal concerns them, they wait for the pause.

        Without a connection the lease expires by itself.
        """
        if lease is None:
            return
        trouble = _STORED_TROUBLES.get(refusal.reason) if refusal is not None else None
        try:
            back_off = pause if trouble else timedelta(0)
            await self._leases.release(lease, back_off=back_off, problem=trouble)
        except StorageUnavailable as error:
            logger.debug(
                "a refresh lease expires by itself",
                extra={"event": "refresh_lease_not_released", "reason": str(error)},
            )


_STORED_TROUBLES: Final[Mapping[Outage | Denial, str]] = {
    Outage.GOOGLE: "google_unavailable",
    Outage.STORAGE: "storage_unavailable",
    Outage.CLIENT: "client_misconfigured",
    Denial.SCOPE_NOT_GRANTED: "scope_not_granted",
}
"""The names in the column `trouble` of the refusals that concern all replicas until the pause is
over. They are stored, so they never change."""


def refusal_of(held: LeaseHeld, scopes: tuple[str, ...]) -> NotGranted | Unavailable | None:
    """Return the refusal that the last holder left for all replicas; None while it refreshes."""
    if held.problem is None:
        return None
    reason = _REASONS.get(held.problem, Outage.GOOGLE)
    if isinstance(reason, Denial):
        return NotGranted(reason, scopes)
    return Unavailable(reason, held.time_left)


_REASONS: Final[Mapping[str, Outage | Denial]] = {
    trouble: reason for reason, trouble in _STORED_TROUBLES.items()
}
