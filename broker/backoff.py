"""Pauses before a retry: exponential back-off with jitter, and `Retry-After`. Pure arithmetic."""

import math
import random
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

Jitter = tuple[float, float]
"""The least and the greatest random factor by which a pause is multiplied."""

TWENTY_PERCENT: Final[Jitter] = (0.8, 1.2)
NO_JITTER: Final[Jitter] = (1.0, 1.0)

_MOST_DOUBLINGS = 30
"""Bounds the arithmetic: 2³⁰ times any start exceeds any longest pause in use."""


def jittered(pause: timedelta, jitter: Jitter = TWENTY_PERCENT) -> timedelta:
    """Multiply a pause by a random factor, so that replicas and retries fall out of step."""
    return pause * random.uniform(*jitter)  # noqa: S311  (jitter, not a secret)


def retry_after(wait: timedelta | float) -> int:
    """Return the value of a `Retry-After` header: whole seconds, rounded up, at least one."""
    seconds = wait.total_seconds() if isinstance(wait, timedelta) else wait
    return max(1, math.ceil(seconds))


@dataclass(frozen=True, slots=True)
class Backoff:
    """A pause that doubles with each failure in a row, up to a longest one. The user counts."""

    start: timedelta
    """After the first failure, before jitter."""
    longest: timedelta
    """Before jitter."""
    jitter: Jitter = TWENTY_PERCENT

    def pause(self, failures: int) -> timedelta:
        """Return the jittered pause after this number of failures in a row; zero after none."""
        if failures < 1:
            return timedelta(0)
        doubled = self.start * 2 ** min(failures - 1, _MOST_DOUBLINGS)
        return jittered(min(doubled, self.longest), self.jitter)
