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
        self._unwritten: dict[UUID, tuple[float, str]] = {}
        self._written: dict[UUID, float] = {}

    def note(self, grant_id: UUID, epoch: float, caller: str) -> None:
        """The grant was used just now."""
        self._unwritten[grant_id] = (epoch, caller)

    def latest(self, grant: Grant) -> LastUse | None:
        """The later of what the table said and what this process knows."""
        stored = (
            None if grant.last_used_at is None else LastUse(grant.last_used_at, grant.last_used_by)
        )
        noted = self._unwritten.get(grant.id)
        if noted is None:
            return stored
        here = _use(noted)
        return here if stored is None or stored.at <= here.at else stored

    async def flush(self) -> None:
        """Write what is due. Raises `StorageUnavailable`; it then stays due."""
        due = {
            grant_id: noted
            for grant_id, noted in self._unwritten.items()
            if noted[0] - self._written.get(grant_id, 0.0) >= _SAME_USE.total_seconds()
        }
        if not due:
            return
        await self._grants.touch({grant_id: _use(noted) for grant_id, noted in due.items()})
        for grant_id, noted in due.items():
            if self._unwritten.get(grant_id) == noted:
                del self._unwritten[grant_id]
        horizon = self._clock.epoch() - _SAME_USE.total_seconds()
        written = {grant_id: epoch for grant_id, (epoch, _) in due.items()}
        self._written = {
            g: epoch for g, epoch in self._written.items() if epoch > horizon
        } | written


def _use(noted: tuple[float, str]) -> LastUse:
    epoch, caller = noted
    return LastUse(datetime.fromtimestamp(epoch, UTC), caller)
