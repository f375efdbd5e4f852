"""Remembers which refreshes failed of late, so that a Google in trouble is asked less, not more."""

import math
import random
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from datetime import datetime, timedelta

from broker.clock import Clock
from broker.web.problems import Problem

_FIRST = timedelta(seconds=0.5)
_LONGEST = timedelta(seconds=5)
LONGEST_ON_REQUEST = timedelta(seconds=60)
"""How far a `Retry-After` is obeyed, so that recovery is noticed all the same."""
_FRESH = timedelta(seconds=60)
"""How long after its pause a failure still counts as a trouble."""
_REMEMBERED = 100_000


@dataclass(slots=True)
class _Trouble:
    failures: int
    until: datetime
    answer: Callable[[int], Problem]


class Backoff:
    """One waiting time per key, doubling with each failure, with jitter, ended by a success."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._troubles: OrderedDict[Hashable, _Trouble] = OrderedDict()

    def pause(self, key: Hashable) -> Problem | None:
        """The answer until the next try is due; nothing when it is due now."""
        trouble = self._troubles.get(key)
        if trouble is None:
            return None
        seconds = math.ceil(self.until(key).total_seconds())
        return trouble.answer(seconds) if seconds > 0 else None

    def failed(
        self,
        key: Hashable,
        answer: Callable[[int], Problem],
        *,
        retry_after: timedelta | None = None,
    ) -> Problem:
        """Wait longer than the last time, and at least as long as Google asked for.

        `answer` makes, from the seconds to wait, what everybody is told who comes before then.
        """
        failures = self._troubles[key].failures + 1 if key in self._troubles else 1
        wait = min(_FIRST * 2 ** min(failures - 1, 10), _LONGEST)
        wait *= random.uniform(0.8, 1.2)  # noqa: S311  (jitter, not a secret)
        if retry_after is not None:
            wait = max(wait, min(retry_after, LONGEST_ON_REQUEST))
        self._troubles[key] = _Trouble(failures, self._clock.now() + wait, answer)
        self._troubles.move_to_end(key)
        while len(self._troubles) > _REMEMBERED:
            self._troubles.popitem(last=False)
        return answer(math.ceil(wait.total_seconds()))

    def until(self, key: Hashable) -> timedelta:
        """How long the pause still lasts."""
        trouble = self._troubles.get(key)
        left = trouble.until - self._clock.now() if trouble else timedelta(0)
        # Longer than any pause: the clock was set back.
        return left if timedelta(0) < left <= LONGEST_ON_REQUEST else timedelta(0)

    def is_in_trouble(self, key: Hashable) -> bool:
        """Whether it failed of late, and has not succeeded since; its pause may be over."""
        trouble = self._troubles.get(key)
        return trouble is not None and self._clock.now() < trouble.until + _FRESH

    def succeeded(self, key: Hashable) -> None:
        """All is well again."""
        self._troubles.pop(key, None)
