"""When each grant was last used, and by which caller: known here at once, to the table soon."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from broker.clock import Clock
from broker.grants.model import Grant, LastUse
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
        self._unwritten: dict[bytes, tuple[float, str]] = {}
        self._written: dict[bytes, float] = {}

    def note(self, grant_bytes: bytes, epoch: float, caller: str) -> None:
        """The grant whose id has these bytes was used just now."""
        self._unwritten[grant_bytes] = (epoch, caller)

    def latest(self, grant: Grant) -> LastUse | None:
        """The later of what the table said and what this process knows."""
        stored = (
            None if grant.last_used_at is None else LastUse(grant.last_used_at, grant.last_used_by)
        )
        noted = self._unwritten.get(grant.id.bytes)
        if noted is None:
            return stored
        here = _use(noted)
        return here if stored is None or stored.at <= here.at else stored

    async def flush(self) -> None:
        """Write what is due. Raises `StorageUnavailable`; it then stays due."""
        due = {
            key: noted
            for key, noted in self._unwritten.items()
            if noted[0] - self._written.get(key, 0.0) >= _SAME_USE.total_seconds()
        }
        if not due:
            return
        await self._grants.touch({UUID(bytes=key): _use(noted) for key, noted in due.items()})
        for key, noted in due.items():
            if self._unwritten.get(key) == noted:
                del self._unwritten[key]
        horizon = self._clock.epoch() - _SAME_USE.total_seconds()
        written = {key: epoch for key, (epoch, _) in due.items()}
        self._written = {
            key: epoch for key, epoch in self._written.items() if epoch > horizon
        } | written


def _use(noted: tuple[float, str]) -> LastUse:
    epoch, caller = noted
    return LastUse(datetime.fromtimestamp(epoch, UTC), caller)
