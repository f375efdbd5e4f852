"""Time as something a part is given, so that tests move it instead of waiting."""

import time
from datetime import UTC, datetime
from typing import Protocol


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


def rfc3339(moment: datetime) -> str:
    """A moment as answers show it: UTC, whole seconds, `Z` (RFC 3339 §5.6)."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="seconds") + "Z"
