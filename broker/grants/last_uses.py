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
        # By the bytes of the grants' ids: held tokens have them, and they are soon compared.
        self._unwritten: dict[bytes, float] = {}
        self._written: dict[bytes, float] = {}

    def note(self, grant_bytes: bytes, epoch: float) -> None:
        """The grant whose id has these bytes was used just now."""
        self._unwritten[grant_bytes] = epoch

    def latest(self, grant_id: UUID, stored: datetime | None) -> datetime | None:
        """The later of what the table says and what this process knows."""
        epoch = self._unwritten.get(grant_id.bytes)
        if epoch is None:
            return stored
        here = datetime.fromtimestamp(epoch, tz=self._clock.now().tzinfo)
        return here if stored is None else max(stored, here)

    async def flush(self) -> None:
        """Write what is due. Raises `StorageUnavailable`; it then stays due."""
        due = {
            key: epoch
            for key, epoch in self._unwritten.items()
            if epoch - self._written.get(key, 0.0) >= _SAME_USE.total_seconds()
        }
        if not due:
            return
        zone = self._clock.now().tzinfo
        await self._grants.touch(
            {UUID(bytes=key): datetime.fromtimestamp(epoch, tz=zone) for key, epoch in due.items()}
        )
        for key, epoch in due.items():
            if self._unwritten.get(key) == epoch:
                del self._unwritten[key]
        horizon = self._clock.epoch() - _SAME_USE.total_seconds()
        self._written = {
            key: epoch for key, epoch in self._written.items() if epoch > horizon
        } | due
