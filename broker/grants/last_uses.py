"""When each grant was last used, and by which caller: known here at once, to the table soon."""

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
"""How often what is due is written."""

_SAME_USE = timedelta(minutes=1)
"""How long after a write a grant's later uses wait for the next one."""

_AT_ONCE = 500
"""Grants that are written in one statement."""

_SLICE = 250
"""Grants that are looked at before others get their turn on the event loop."""

_LAST_FLUSH_SECONDS = 3.0
"""How long the broker's stop may take for it."""

_Use = tuple[float, str]


class LastUses:
    """When each grant was last used: known here at once, written to the table every second.

    A grant is due once it was used and has not been written for a minute. What a flush costs grows
    with what was used since the last one and what is due, not with what is known: a grant that was
    written is looked at again once, when its minute is over.
    """

    def __init__(self, grants: GrantStore, clock: Clock) -> None:
        self._grants = grants
        self._clock = clock
        # By the bytes of the grants' ids: held tokens have them, and they are soon compared. All
        # that a use itself does is to be put here.
        self._noted: dict[bytes, _Use] = {}
        self._due: dict[bytes, _Use] = {}
        # Those that were written within the minute, each with its use since then.
        self._resting: dict[bytes, _Use | None] = {}
        self._rests: deque[tuple[float, bytes]] = deque()

    def note(self, grant_bytes: bytes, epoch: float, caller: str) -> None:
        """The grant whose id has these bytes was used just now."""
        self._noted[grant_bytes] = (epoch, caller)

    def latest(self, grant: Grant) -> LastUse | None:
        """The later of what the table said and what this process knows."""
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
        """How many grants are to be written."""
        return len(self._due)

    async def flush(self) -> None:
        """Write what is due. Raises `StorageUnavailable`; what is not written yet then stays due.

        A grant that somebody else has in hand is passed over, and is due again the next time.
        """
        await self._sort()
        await self._wake()
        left = len(self._due)
        while left > 0:
            batch = dict(islice(self._due.items(), min(left, _AT_ONCE)))
            left -= len(batch)
            uses = {}
            for portion in _slices(sorted(batch)):
                uses.update({UUID(bytes=key): _use(batch[key]) for key in portion})
                await asyncio.sleep(0)
            busy = {grant_id.bytes for grant_id in await self._grants.touch(uses)}
            self._settle(batch, busy)
            await asyncio.sleep(0)

    async def flush_last(self) -> None:
        """Write what can be written soon, before the broker stops; the rest is lost.

        Raises `StorageUnavailable`.
        """
        try:
            async with asyncio.timeout(_LAST_FLUSH_SECONDS):
                await self.flush()
        except TimeoutError:
            logger.warning(
                "when grants were last used could not all be written in time",
                extra={"grants": self.due},
            )

    async def _sort(self) -> None:
        """What was used since the last flush is due, or waits for the end of its minute."""
        are_more = True
        while are_more:
            # Until all are sorted at once: some more may come with each turn, for ever.
            are_more = len(self._noted) > _SLICE
            for _ in range(min(len(self._noted), _SLICE)):
                key, use = self._noted.popitem()
                (self._resting if key in self._resting else self._due)[key] = use
            await asyncio.sleep(0)

    async def _wake(self) -> None:
        """Those whose minute is over are due, if they were used in it."""
        horizon = self._clock.epoch() - _SAME_USE.total_seconds()
        while self._rests and self._rests[0][0] <= horizon:
            for _ in range(_SLICE):
                if not self._rests or self._rests[0][0] > horizon:
                    break
                _, key = self._rests.popleft()
                use = self._resting.pop(key)
                if use is not None:
                    self._due[key] = use
            await asyncio.sleep(0)

    def _settle(self, batch: Iterable[bytes], busy: Container[bytes]) -> None:
        """Let what was written rest."""
        now = self._clock.epoch()
        for key in batch:
            use = self._due.pop(key)
            if key in busy:
                # Behind the others, so that a round meets it once.
                self._due[key] = use
            else:
                self._resting[key] = None
                self._rests.append((now, key))


def _slices(keys: Sequence[bytes]) -> list[Sequence[bytes]]:
    return [keys[start : start + _SLICE] for start in range(0, len(keys), _SLICE)]


def _use(noted: _Use) -> LastUse:
    epoch, caller = noted
    return LastUse(datetime.fromtimestamp(epoch, UTC), caller)
