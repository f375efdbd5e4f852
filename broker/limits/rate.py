"""Token buckets: how often something may happen on average, and how often at once.

Times are seconds of any clock that never goes back. Nothing is remembered but one number.
"""

_HAIR = 1e-9
"""Seconds that rounding may be off."""


class TokenBucket:
    """Full at first; refilled at an even rate, up to `burst` tokens."""

    __slots__ = ("_burst", "_full_at", "_interval", "_spare")

    def __init__(self, *, per_second: float, burst: int) -> None:
        self._interval = 1 / per_second
        self._burst = burst * self._interval
        self._spare = (burst - 1) * self._interval + _HAIR
        self._full_at = float("-inf")

    def take(self, now: float) -> float:
        """Take one token: 0; or, where there is none, how many seconds until there is one."""
        full_at = self._full_at
        full_at = max(full_at, now)
        wait = full_at - now - self._spare
        if wait > 0:
            return wait + _HAIR
        self._full_at = full_at + self._interval
        return 0.0

    def wait(self, now: float) -> float:
        """How many seconds until there is a token; nothing is taken."""
        return max(0.0, self._full_at - now - self._spare)

    def charge(self, now: float, count: int) -> float:
        """Take more tokens than there may be: 0, and what is lacking is owed.

        Where something is owed already, nothing is taken: how many seconds until it is paid off.
        """
        full_at = max(self._full_at, now)
        wait = full_at - now - self._burst - _HAIR
        if wait > 0:
            return wait + _HAIR
        self._full_at = full_at + count * self._interval
        return 0.0

    def is_full(self, now: float) -> bool:
        """Whether it is as good as new."""
        return self._full_at <= now
