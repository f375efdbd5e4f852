"""Circuit breaker towards Google: while Google as a whole fails, few requests are sent to it, and
none waits long.

Each grant has its own back-off; the breaker is for the outage in which thousands of grants would
fail one after the other. A failure of one account says nothing about the others: the breaker counts
failures by grant, only those of Google as a whole, and lets a grant that has not failed itself
probe.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from uuid import UUID

from broker.backoff import jittered
from broker.clock import Clock

_TRIPPED_BY = 5
"""Different grants that failed since the last success."""

_OPEN_FOR = timedelta(seconds=2)
"""Until the next probe; short, so that a recovery is noticed within seconds."""

_PROBE_SECONDS = 1.0
"""How long the others wait for one probe before another grant probes beside it."""

_PACE_SECONDS = 0.2
"""From the end of one probe to the next: grants that have not failed yet may be very many."""

_CONVINCED_BY = 3
"""Failed or unanswered probes; after them, no request waits for the next probe."""


class CircuitBreaker:
    """Closed, every refresh may call Google.

    Open, a grant that failed recently waits for `_OPEN_FOR`. The other grants probe one after the
    other, and requests that arrive meanwhile wait for the result; an unanswered probe holds up the
    next one for at most `_PROBE_SECONDS`.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failing: set[UUID] = set()
        self._open_until: datetime | None = None
        self._probing: set[UUID] = set()
        self._probes_failed = 0
        """Since the last success."""
        self._next_probe_at = float("-inf")
        """By the event loop's clock."""
        self._changed = asyncio.Event()

    @property
    def is_open(self) -> bool:
        """True while Google as a whole seems to fail."""
        return self._open_until is not None

    def seconds_left(self) -> float:
        """Return how long a grant that failed recently must wait.

        0 lets one such grant call Google, and makes the next one wait for the result.
        """
        if self._open_until is None:
            return 0.0
        now = self._clock.now()
        # Further away than it was ever set means that the clock was set back.
        if now < self._open_until <= now + 2 * _OPEN_FOR:
            return (self._open_until - now).total_seconds()
        self._open_until = now + _OPEN_FOR
        return 0.0

    @property
    def refuses_probes(self) -> bool:
        """True if `may_probe` would return False without waiting."""
        return self.is_open and self._is_convinced and self._seconds_to_next_probe > 0

    @property
    def _is_convinced(self) -> bool:
        return len(self._probing) + self._probes_failed >= _CONVINCED_BY

    @property
    def _seconds_to_next_probe(self) -> float:
        return self._next_probe_at - asyncio.get_running_loop().time()

    async def may_probe(self) -> bool:
        """True if a grant that has not failed itself may call Google; may wait for a probe.

        The call must follow immediately, inside `probing`.
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

    async def _wait(self, at_most_seconds: float) -> None:
        changed = self._changed
        try:
            async with asyncio.timeout(at_most_seconds):
                await changed.wait()
        except TimeoutError:
            return

    @contextmanager
    def probing(self, grant_id: UUID) -> Iterator[None]:
        """Mark the call to Google as a probe, whose result the others wait for."""
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
            self._notify()

    def failed(self, grant_id: UUID) -> None:
        """Note that Google as a whole failed to answer a refresh of this grant."""
        self._failing.add(grant_id)
        self._probes_failed += grant_id in self._probing
        if len(self._failing) >= _TRIPPED_BY:
            self._open_until = self._clock.now() + jittered(_OPEN_FOR)

    def succeeded(self) -> None:
        """Note that Google has answered, whatever the answer is."""
        self._failing.clear()
        self._probes_failed = 0
        self._open_until = None
        self._next_probe_at = float("-inf")
        self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
