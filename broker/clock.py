"""Time as a dependency that is passed in, so that tests set it instead of waiting."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Protocol

_LARGEST_IGNORED_STEP = 3600.0
"""Seconds. A machine whose clock is set by more had started without knowing the time."""


class Clock(Protocol):
    """Wall-clock time in two forms: `now()` for decisions, `epoch()` for the hot path."""

    def now(self) -> datetime:
        """Return the present as an aware datetime in UTC."""
        ...

    def epoch(self) -> float:
        """Return the same instant in seconds since 1970."""
        ...


class SystemClock:
    """The machine's own clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def epoch(self) -> float:
        return time.time()


class SteadyClock:
    """The machine's wall clock at construction, plus the time elapsed since.

    If the machine's clock is set meanwhile, no token's remaining lifetime changes, neither here nor
    on the replicas that read what this one writes.
    """

    def __init__(
        self, wall: Callable[[], float] | None = None, elapsed: Callable[[], float] | None = None
    ) -> None:
        """`wall` returns seconds since 1970, `elapsed` seconds of a clock that is never set."""
        self._wall = wall or time.time
        self._elapsed = elapsed or _since_boot()
        self._offset = self._wall() - self._elapsed()

    def now(self) -> datetime:
        """Return the present, and follow a large step of the machine's clock.

        Something calls this every second, so that a step is noticed.
        """
        elapsed = self._elapsed()
        offset = self._wall() - elapsed
        if abs(offset - self._offset) > _LARGEST_IGNORED_STEP:
            self._offset = offset
        return datetime.fromtimestamp(elapsed + self._offset, UTC)

    def epoch(self) -> float:
        return self._elapsed() + self._offset


def _since_boot() -> Callable[[], float]:
    """Return a clock that also counts the time that the machine sleeps, if there is one."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return partial(time.clock_gettime, time.CLOCK_BOOTTIME)
    return time.monotonic


def rfc3339(moment: datetime) -> str:
    """Format a time for JSON answers: UTC, whole seconds, `Z` (RFC 3339 §5.6)."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="seconds") + "Z"
