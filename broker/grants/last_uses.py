"""Write-behind of when each grant was last used and by which caller: in memory immediately, in the
table within seconds.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Container, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from uuid import UUID

from broker.clock import Clock
from broker.grants.model import Grant, LastUse
from broker.grants.store import GrantStore

logger = logging.getLogger(__name__)

FLUSH_SECONDS = 1.0
"""The interval between writes of due grants."""

_WRITE_INTERVAL = timedelta(minutes=1)
"""The time between two writes of one grant."""

_GRANTS_PER_STATEMENT = 500

_SLICE = 250
"""The number of grants processed before the event loop runs other tasks."""

_LAST_FLUSH_SECONDS = 3.0
"""The share of the broker's stop that the last flush may take."""

_Use = tuple[float, str]


class LastUses:
    """When each grant was last used: known here immediately, written to the table every second.

    A grant is due if it was used and not written for a minute. The cost of a flush grows with the
    uses since the last flush and the due grants, not with all known grants: a written grant is
    visited once more, after its minute.
    """

    def __init__(self, grants: GrantStore, clock: Clock) -> None:
        self._grants = grants
        self._clock = clock
        # Keyed by the bytes of the grant ids: cached tokens have them, and they compare fast. A use
        # itself only writes to this dictionary.
        self._noted: dict[bytes, _Use] = {}
        self._due: dict[bytes, _Use] = {}
        # Grants written within the minute, each with its latest use since then.
        self._resting: dict[bytes, _Use | None] = {}
        self._rests: deque[tuple[float, bytes]] = deque()

    def record_use(self, grant_bytes: bytes, epoch: float, caller: str) -> None:
        """Record a use, at `epoch` seconds since 1970, of the grant whose id has these bytes."""
        self._noted[grant_bytes] = (epoch, caller)

    def latest(self, grant: Grant) -> LastUse | None:
        """Return the later of the use in the table and the use in this process."""
        stored = (
            None if grant.last_used_at is None else LastUse(grant.last_used_at, grant.last_used_by)
        )
        key = grant.id.bytes
        noted = self._noted.get(key) or self._resting.get(key) or self._due.get(key)
        if noted is None:
            return stored
        here = _use(noted)
        return here if stored is None or stored.at <= here.at else stored

    @property
    def due(self) -> int:
        """The number of grants to be written."""
        return len(self._due)

    async def flush(self) -> None:
        """Write the due grants. Raises `StorageUnavailable`; unwritten grants then stay due.

        Grants whose rows are locked are skipped, and stay due for the next flush.
        """
        now = self._clock.epoch()
        await self._sort()
        await self._wake(now)
        left = len(self._due)
        while left > 0:
            batch = dict(islice(self._due.items(), min(left, _GRANTS_PER_STATEMENT)))
            left -= len(batch)
            uses = {}
            for portion in _slices(sorted(batch)):
                uses.update({UUID(bytes=key): _use(batch[key]) for key in portion})
                await asyncio.sleep(0)
            locked = {grant_id.bytes for grant_id in await self._grants.write_last_uses(uses)}
            self._settle(batch, locked, now)
            await asyncio.sleep(0)

    async def flush_last(self) -> None:
        """Write what can be written within three seconds, before the broker stops.

        Raises `StorageUnavailable`.
        """
        try:
            async with asyncio.timeout(_LAST_FLUSH_SECONDS):
                await self.flush()
        except TimeoutError:
            logger.warning(
                "the broker stops before all last uses of grants are written",
                extra={"event": "last_uses_not_written", "grants": self.due},
            )

    async def _sort(self) -> None:
        """Make the grants used since the last flush due, or let them wait for their minute."""
        are_more = True
        while are_more:
            # Stop once one slice takes all that is left: more uses may arrive with each yield,
            # forever.
            are_more = len(self._noted) > _SLICE
            for _ in range(min(len(self._noted), _SLICE)):
                key, use = self._noted.popitem()
                (self._resting if key in self._resting else self._due)[key] = use
            await asyncio.sleep(0)

    async def _wake(self, now: float) -> None:
        """Make the grants due whose minute is over and that were used in it."""
        horizon = now - _WRITE_INTERVAL.total_seconds()
        while self._rests and self._rests[0][0] <= horizon:
            for _ in range(_SLICE):
                if not self._rests or self._rests[0][0] > horizon:
                    break
                _, key = self._rests.popleft()
                use = self._resting.pop(key)
                if use is not None:
                    self._due[key] = use
            await asyncio.sleep(0)

    def _settle(self, batch: Iterable[bytes], locked: Container[bytes], now: float) -> None:
        """Start the minute of written grants, and keep those with locked rows due.

        `now` is before the write, however long it took: a use meanwhile is of the next minute.
        """
        for key in batch:
            use = self._due.pop(key)
            if key in locked:
                # At the end, so that one flush tries it once.
                self._due[key] = use
            else:
                self._resting[key] = None
                self._rests.append((now, key))


def _slices(keys: Sequence[bytes]) -> list[Sequence[bytes]]:
    return [keys[start : start + _SLICE] for start in range(0, len(keys), _SLICE)]


def _use(noted: _Use) -> LastUse:
    epoch, caller = noted
    return LastUse(datetime.fromtimestamp(epoch, UTC), caller)
