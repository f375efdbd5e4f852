"""Back-off of failed refreshes, per grant and per grant and scope set: Google in trouble gets
fewer requests, not more.
"""

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

from broker.backoff import Backoff
from broker.clock import Clock
from broker.tokens.results import NotGranted, Unavailable

_FIRST = timedelta(seconds=0.5)
_LONGEST = timedelta(seconds=5)
LONGEST_ON_REQUEST = timedelta(seconds=60)
"""The longest `Retry-After` that is obeyed, so that a recovery is noticed soon."""
_RECENT = timedelta(seconds=60)
"""How long after its pause a failure counts as recent."""
_REMEMBERED = 100_000

_BACKOFF = Backoff(_FIRST, _LONGEST)
RefusalT = TypeVar("RefusalT", NotGranted, Unavailable)


@dataclass(slots=True)
class _Failure:
    in_a_row: int
    until: datetime
    refusal: NotGranted | Unavailable


class RefreshBackoff:
    """One pause per key: it doubles with each failure, with jitter, and a success ends it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failures: OrderedDict[Hashable, _Failure] = OrderedDict()

    def refusal(self, key: Hashable) -> NotGranted | Unavailable | None:
        """Return what the last failure answers until the next try is due; None if it is due."""
        failure = self._failures.get(key)
        left = self.time_left(key)
        if failure is None or not left:
            return None
        return failure.refusal.with_retry_after(left)

    def failed(
        self, key: Hashable, refusal: RefusalT, *, retry_after: timedelta | None = None
    ) -> RefusalT:
        """Begin a pause that is longer than the last one, and as long as Google requests.

        Returns the refusal, for all requests until then, with the pause as its `retry_after`.
        """
        failures = self._failures[key].in_a_row + 1 if key in self._failures else 1
        pause = _BACKOFF.pause(failures)
        if retry_after is not None:
            pause = max(pause, min(retry_after, LONGEST_ON_REQUEST))
        self._failures[key] = _Failure(failures, self._clock.now() + pause, refusal)
        self._failures.move_to_end(key)
        while len(self._failures) > _REMEMBERED:
            self._failures.popitem(last=False)
        return refusal.with_retry_after(pause)

    def time_left(self, key: Hashable) -> timedelta:
        """Return how long the pause still lasts."""
        failure = self._failures.get(key)
        left = failure.until - self._clock.now() if failure else timedelta(0)
        # A pause longer than any means that the clock was set back.
        return left if timedelta(0) < left <= LONGEST_ON_REQUEST else timedelta(0)

    def has_failed_recently(self, key: Hashable) -> bool:
        """True if it failed recently and has not succeeded since; its pause may be over."""
        failure = self._failures.get(key)
        return failure is not None and self._clock.now() < failure.until + _RECENT

    def succeeded(self, key: Hashable) -> None:
        """End the pause and forget the failures."""
        self._failures.pop(key, None)
