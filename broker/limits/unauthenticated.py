"""How much somebody may do whom nobody knows: a bounded number of tries for each address.

An address that is forgotten starts anew: the memory is bounded, and a flood from many addresses at
once is for the network in front of the broker to stop.
"""

from collections.abc import Callable

from broker.limits.rate import TokenBucket

ADDRESSES_AT_MOST = 10_000
"""Remembered; who has not come for longest goes first."""


class Strangers:
    """A bucket for each address."""

    def __init__(
        self,
        *,
        per_second: float,
        burst: int,
        clock: Callable[[], float],
        at_most: int = ADDRESSES_AT_MOST,
    ) -> None:
        """`clock` gives seconds, and never goes back."""
        self._per_second = per_second
        self._burst = burst
        self._clock = clock
        self._at_most = at_most
        self._buckets: dict[str, TokenBucket] = {}

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, address: str) -> float:
        """One more try: 0; or, after too many, the seconds until there may be another."""
        bucket = self._buckets.pop(address, None)
        if bucket is None:
            if len(self._buckets) >= self._at_most:
                del self._buckets[next(iter(self._buckets))]
            bucket = TokenBucket(per_second=self._per_second, burst=self._burst)
        # Put last, behind all who came before.
        self._buckets[address] = bucket
        return bucket.take(self._clock())

    def wait(self, address: str) -> float:
        """The seconds until there may be another try; nothing is taken."""
        bucket = self._buckets.get(address)
        return bucket.wait(self._clock()) if bucket is not None else 0.0
