"""Time as something a part is given, so that tests move it instead of waiting."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Protocol

_BELIEVED_STEP = 3600.0
"""Seconds: a machine that is set by more had started without any idea of the time."""


class Clock(Protocol):
    """Wall-clock time, twice: `now()` to reason with, `epoch()` for the hot path."""

    def now(self) -> datetime:
        """The present as an aware datetime in UTC."""
        ...

    def epoch(self) -> float:
        """The same instant in seconds since 1970."""
        ...


class SystemClock:
    """The machine's own clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def epoch(self) -> float:
        return time.time()


class SteadyClock:
    """The machine's clock as it was at first, and the time that has passed since then.

    Where somebody sets the machine's clock meanwhile, no token seems to live longer or shorter for
    it, neither here nor at the replicas that read what is written here.
    """

    def __init__(
        self, wall: Callable[[], float] | None = None, passed: Callable[[], float] | None = None
    ) -> None:
        """`wall` gives seconds since 1970, `passed` seconds since whenever, never set."""
        self._wall = wall or time.time
        self._passed = passed or _since_boot()
        self._ahead = self._wall() - self._passed()

    def now(self) -> datetime:
        """Notices, too, that the machine's clock was set; something asks every second."""
        passed = self._passed()
        ahead = self._wall() - passed
        if abs(ahead - self._ahead) > _BELIEVED_STEP:
            self._ahead = ahead
        return datetime.fromtimestamp(passed + self._ahead, UTC)

    def epoch(self) -> float:
        return self._passed() + self._ahead


def _since_boot() -> Callable[[], float]:
    """A clock that goes on while the machine sleeps, where there is one."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return partial(time.clock_gettime, time.CLOCK_BOOTTIME)
    return time.monotonic


def rfc3339(moment: datetime) -> str:
    """A moment as answers show it: UTC, whole seconds, `Z` (RFC 3339 §5.6)."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="seconds") + "Z"
