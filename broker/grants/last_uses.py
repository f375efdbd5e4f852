"""When each grant was last used: known to this process at once, to the table soon."""

from datetime import datetime, timedelta
from uuid import UUID

from broker.clock import Clock
from broker.grants.store import GrantStore

FLUSH_SECONDS = 1.0
"""How often what is due is written."""

_SAME_USE = timedelta(minutes=1)
"""Within this, a grant's later uses are not written again."""


class LastUses:
    """When each grant was last used: known here at once, written to the table every second."""

    def __init__(self, grants: GrantStore, clock: Clock) -> None:
        self._grants = grants
        self._clock = clock
        self._unwritten: dict[UUID, float] = {}
        self._written: dict[UUID, float] = {}

    def note(self, grant_id: UUID, epoch: float) -> None:
        """The grant was used just now."""
        self._unwritten[grant_id] = epoch

    def latest(self, grant_id: UUID, stored: datetime | None) -> datetime | None:
        """The later of what the table says and what this process knows."""
        epoch = self._unwritten.get(grant_id)
        if epoch is None:
            return stored
        here = datetime.fromtimestamp(epoch, tz=self._clock.now().tzinfo)
        return here if stored is None else max(stored, here)

    async def flush(self) -> None:
        """Write what is due. Raises `StorageUnavailable`; it then stays due."""
        due = {
            grant_id: epoch
            for grant_id, epoch in self._unwritten.items()
            if epoch - self._written.get(grant_id, 0.0) >= _SAME_USE.total_seconds()
        }
        if not due:
            return
        zone = self._clock.now().tzinfo
        await self._grants.touch(
            {grant_id: datetime.fromtimestamp(epoch, tz=zone) for grant_id, epoch in due.items()}
        )
        for grant_id, epoch in due.items():
            if self._unwritten.get(grant_id) == epoch:
                del self._unwritten[grant_id]
        horizon = self._clock.epoch() - _SAME_USE.total_seconds()
        self._written = {g: epoch for g, epoch in self._written.items() if epoch > horizon} | due
