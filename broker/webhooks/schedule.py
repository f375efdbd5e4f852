"""When an event is sent again, and when everything rests for the receiver's sake."""

import random
from datetime import datetime, timedelta

from broker.clock import Clock
from broker.webhooks.delivery import AT_ONCE, Outcome

WAITS = (
    timedelta(seconds=5),
    timedelta(minutes=5),
    timedelta(minutes=30),
    timedelta(hours=2),
    timedelta(hours=5),
    timedelta(hours=10),
    timedelta(hours=14),
    timedelta(hours=20),
    timedelta(hours=24),
)
"""After the first failure, the second, …; the schedule that Standard Webhooks recommends."""

_THROTTLED = timedelta(seconds=5)
_GONE = timedelta(hours=1)
_IN_A_ROW = 5


def next_attempt(attempts: int, outcome: Outcome, now: datetime) -> datetime | None:
    """When an event that failed so often is sent again, with jitter; None for never."""
    if attempts > len(WAITS):
        return None
    wait = WAITS[attempts - 1] * random.uniform(0.8, 1.2)  # noqa: S311  (jitter, not a secret)
    return now + max(wait, outcome.retry_after or wait)


class Pace:
    """How much is sent at once, by how the receiver has been; each replica finds out itself."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failures = 0
        self._rests_until: datetime | None = None

    def most_at_once(self) -> int:
        """None while the receiver asked for rest, one while it seems to be down."""
        if self._rests_until is not None and self._clock.now() < self._rests_until:
            return 0
        return 1 if self._failures >= _IN_A_ROW else AT_ONCE

    def note(self, outcome: Outcome) -> None:
        """Learn from an attempt."""
        if outcome.failure is None:
            self._failures = 0
            return
        self._failures += 1
        rest = _GONE if outcome.is_gone else outcome.retry_after
        if rest is None and outcome.is_throttling:
            rest = _THROTTLED
        if rest is not None:
            until = self._clock.now() + rest
            self._rests_until = max(self._rests_until or until, until)
