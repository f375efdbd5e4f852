"""A circuit breaker towards Google: while Google as a whole fails, few ask and nobody waits long.

Each grant has its own back-off; this is for the outage that would otherwise have thousands of
grants fail one after the other. What one account meets says nothing of the others: failures count
by grant, only those that are Google's as a whole, and a grant that has not failed itself is let
through to find out.
"""

import asyncio
import random
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from uuid import UUID

from broker.clock import Clock

_TRIPPED_BY = 5
"""Different grants that failed since the last success."""

_OPEN_FOR = timedelta(seconds=2)
"""Until the next probe; short, so that recovery is noticed within seconds."""

_PROBE_SECONDS = 1.0
"""How long one probe is waited for, before another grant probes beside it."""

_PACE_SECONDS = 0.2
"""From the end of one probe to the next: grants that have not failed yet may be very many."""

_CONVINCED_BY = 3
"""Probes, failed or unanswered: then nobody else waits for the next one's."""


class CircuitBreaker:
    """Closed, everybody asks. Open, a grant with troubles of its own waits for `_OPEN_FOR`; others
    probe, one after the other, and whoever comes meanwhile waits a moment for how it goes. A probe
    without an answer keeps the next one waiting for `_PROBE_SECONDS` and no longer.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failing: set[UUID] = set()
        self._open_until: datetime | None = None
        self._probing: set[UUID] = set()
        self._probes_failed = 0
        """Since the last success."""
        self._next_probe_at = float("-inf")
        """By the event loop's time."""
        self._changed = asyncio.Event()

    @property
    def is_open(self) -> bool:
        """Whether Google as a whole seems to fail."""
        return self._open_until is not None

    def seconds_left(self) -> float:
        """How long a grant in trouble is not to ask; 0 lets one ask, and makes the next one wait
        for how it goes.
        """
        if self._open_until is None:
            return 0.0
        now = self._clock.now()
        # Further away than it was ever put: the clock was set back.
        if now < self._open_until <= now + 2 * _OPEN_FOR:
            return (self._open_until - now).total_seconds()
        self._open_until = now + _OPEN_FOR
        return 0.0

    @property
    def refuses_probes(self) -> bool:
        """Whether `may_probe` would say no at once."""
        return self.is_open and self._is_convinced and self._seconds_to_next_probe > 0

    @property
    def _is_convinced(self) -> bool:
        return len(self._probing) + self._probes_failed >= _CONVINCED_BY

    @property
    def _seconds_to_next_probe(self) -> float:
        return self._next_probe_at - asyncio.get_running_loop().time()

    async def may_probe(self) -> bool:
        """Whether a grant that has not failed itself may ask, perhaps after waiting for a moment.

        If so, it is to ask at once, and nothing else, inside `probing`.
        """
        while self.is_open:
            left = self._seconds_to_next_probe
            if left <= 0:
                self._next_probe_at = asyncio.get_running_loop().time() + _PROBE_SECONDS
                return True
            if self._is_convinced:
                return False
            await self._wait(left)
        return True

    async def _wait(self, seconds: float) -> None:
        """Until something has changed, at most so long."""
        changed = self._changed
        try:
            async with asyncio.timeout(seconds):
                await changed.wait()
        except TimeoutError:
            return

    @contextmanager
    def probing(self, grant_id: UUID) -> Iterator[None]:
        """Around the call to Google: the others wait for how this goes, for a while."""
        if not self.is_open:
            yield
            return
        self._probing.add(grant_id)
        try:
            yield
        finally:
            self._probing.discard(grant_id)
            if self.is_open:
                soon = asyncio.get_running_loop().time() + _PACE_SECONDS
                self._next_probe_at = min(self._next_probe_at, soon)
            self._tell()

    def failed(self, grant_id: UUID) -> None:
        """Google as a whole could not be reached, or could not answer, when asked for this one."""
        self._failing.add(grant_id)
        self._probes_failed += grant_id in self._probing
        if len(self._failing) >= _TRIPPED_BY:
            jitter = random.uniform(0.8, 1.2)  # noqa: S311  (jitter, not a secret)
            self._open_until = self._clock.now() + _OPEN_FOR * jitter

    def succeeded(self) -> None:
        """Google has answered, whatever it said."""
        self._failing.clear()
        self._probes_failed = 0
        self._open_until = None
        self._next_probe_at = float("-inf")
        self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
