"""Rate limits by the generic cell rate algorithm (GCRA), the leaky bucket as a meter.

Times are seconds of a monotonic clock.
"""

from collections.abc import Callable

ADDRESSES_AT_MOST = 10_000
"""Addresses with a state; the one whose last request is the oldest is evicted first."""

_EPSILON = 1e-9
"""Seconds of rounding error that are tolerated."""


class Gcra:
    """One rate limit. Its whole state is the theoretical arrival time of the next request."""

    __slots__ = ("_arrival", "_burst", "_interval", "_tolerance")

    def __init__(self, *, per_second: float, burst: int) -> None:
        """`burst` requests may come together after a rest."""
        self._interval = 1 / per_second
        self._burst = burst * self._interval
        self._tolerance = (burst - 1) * self._interval + _EPSILON
        self._arrival = float("-inf")

    def admit(self, now: float) -> float:
        """Count one request and return 0, or return the seconds until one may come."""
        arrival = self._arrival
        arrival = max(arrival, now)
        wait = arrival - now - self._tolerance
        if wait > 0:
            return wait + _EPSILON
        self._arrival = arrival + self._interval
        return 0.0

    def seconds_to_wait(self, now: float) -> float:
        """Return the seconds until a request may come, without counting one."""
        return max(0.0, self._arrival - now - self._tolerance)

    def charge(self, now: float, count: int) -> float:
        """Count `count` requests and return 0; more than the burst allows are owed.

        If requests are owed already, count none and return the seconds until they are paid off.
        """
        arrival = max(self._arrival, now)
        wait = arrival - now - self._burst - _EPSILON
        if wait > 0:
            return wait + _EPSILON
        self._arrival = arrival + count * self._interval
        return 0.0


class AddressRateLimits:
    """One rate limit per IP address, for requests without a known credential.

    The memory is bounded: an evicted address starts with a full burst. A flood from very many
    addresses must be stopped by the network in front of the broker.
    """

    def __init__(
        self,
        *,
        per_second: float,
        burst: int,
        clock: Callable[[], float],
        at_most: int = ADDRESSES_AT_MOST,
    ) -> None:
        """`clock` returns monotonic seconds; `at_most` bounds the addresses."""
        self._per_second = per_second
        self._burst = burst
        self._clock = clock
        self._at_most = at_most
        self._limits: dict[str, Gcra] = {}

    def __len__(self) -> int:
        return len(self._limits)

    def admit(self, address: str) -> float:
        """Count one request and return 0, or return the seconds until one may come."""
        limit = self._limits.pop(address, None)
        if limit is None:
            if len(self._limits) >= self._at_most:
                del self._limits[next(iter(self._limits))]
            limit = Gcra(per_second=self._per_second, burst=self._burst)
        # Inserted last: the dict is in the order of each address's last request.
        self._limits[address] = limit
        return limit.admit(self._clock())

    def seconds_to_wait(self, address: str) -> float:
        """Return the seconds until a request may come, without counting one."""
        limit = self._limits.get(address)
        return limit.seconds_to_wait(self._clock()) if limit is not None else 0.0
