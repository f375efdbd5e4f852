"""A circuit breaker towards Google: when everything fails, one asks, and the others wait.

Each grant has its own back-off; this is for the outage that would otherwise have thousands of
grants fail one after the other.
"""

import random
from datetime import datetime, timedelta

from broker.clock import Clock
from broker.tokens.backoff import LONGEST_ON_REQUEST

_TRIPPED_BY = 5
"""Failures in a row, of whichever grants."""

_OPEN_FOR = timedelta(seconds=2)
"""Until the next probe; short, so that recovery is noticed within seconds."""


class CircuitBreaker:
    """Closed, everybody asks; open, nobody; half open, one."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failures = 0
        self._open_until: datetime | None = None

    def seconds_left(self) -> float:
        """How long nobody is to ask; 0 lets one ask, and makes the next wait for how it goes."""
        if self._open_until is None:
            return 0.0
        now = self._clock.now()
        # Further away than it was ever put: the clock was set back.
        if now < self._open_until <= now + LONGEST_ON_REQUEST:
            return (self._open_until - now).total_seconds()
        self._open_until = now + _OPEN_FOR
        return 0.0

    def failed(self, retry_after: timedelta | None = None) -> None:
        """Google could not be reached, or could not answer, or asked to be left alone so long."""
        self._failures += 1
        if self._failures >= _TRIPPED_BY:
            jitter = random.uniform(0.8, 1.2)  # noqa: S311  (jitter, not a secret)
            asked = min(retry_after or timedelta(0), LONGEST_ON_REQUEST)
            self._open_until = self._clock.now() + max(_OPEN_FOR * jitter, asked)

    def succeeded(self) -> None:
        """Google has answered, whatever it said."""
        self._failures = 0
        self._open_until = None
