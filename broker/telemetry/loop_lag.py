"""Event-loop lag: how late the loop runs its timers. What blocks the loop delays every request."""

import asyncio
import time

from prometheus_client import Histogram

SAMPLE_SECONDS = 0.25
"""Between two measurements; each costs a few microseconds."""


class LoopLag:
    """A timer that measures its own delay, in the running loop."""

    def __init__(self, histogram: Histogram) -> None:
        """`histogram` takes seconds."""
        self._histogram = histogram
        self._loop = asyncio.get_running_loop()
        self._schedule()

    def close(self) -> None:
        """Stop the timer."""
        self._timer.cancel()

    def _schedule(self) -> None:
        self._due = time.monotonic() + SAMPLE_SECONDS
        self._timer = self._loop.call_later(SAMPLE_SECONDS, self._measure)

    def _measure(self) -> None:
        # The loop's clock may be coarser than the system's, so a timer can be slightly early.
        self._histogram.observe(max(0.0, time.monotonic() - self._due))
        self._schedule()
