"""Measures how late the event loop runs what is due: what blocks it delays every request."""

import asyncio
import time

from prometheus_client import Histogram

SAMPLE_SECONDS = 0.25
"""Between two measurements; each costs some microseconds."""


class LoopLag:
    """A timer that notes how late it was called. Belongs to the running loop."""

    def __init__(self, histogram: Histogram) -> None:
        """`histogram` takes seconds."""
        self._histogram = histogram
        self._loop = asyncio.get_running_loop()
        self._plan()

    def close(self) -> None:
        """Measure no more."""
        self._timer.cancel()

    def _plan(self) -> None:
        self._due = time.monotonic() + SAMPLE_SECONDS
        self._timer = self._loop.call_later(SAMPLE_SECONDS, self._measure)

    def _measure(self) -> None:
        # A loop's clock may be coarser than the system's, so that a timer can come a bit early.
        self._histogram.observe(max(0.0, time.monotonic() - self._due))
        self._plan()
