"""How many audit records those may cause whom nobody knows: so many a minute, the rest is counted.

What a known caller did is none of this module's business, and never left out by it.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping

RECORDED_A_MINUTE = 60
"""Of each action, in each replica: junk on the public listener hides no guessing of keys on the
internal one.
"""

MINUTE_SECONDS = 60.0

Kind = tuple[str, str]
"""Action and outcome; there is a bounded number of them."""


class StrangerShare:
    """Says which are recorded, and how many of each kind were not."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` gives seconds, and never goes back."""
        self._clock = clock
        self._began = clock()
        self._recorded: Counter[str] = Counter()
        self._left_out: Counter[Kind] = Counter()
        self._untold: Counter[Kind] = Counter()
        """Of minutes that are over."""

    def takes(self, kind: Kind, *, has_room: bool) -> bool:
        """Whether this one is recorded; else it is counted."""
        self._turn()
        action, _ = kind
        if has_room and self._recorded[action] < RECORDED_A_MINUTE:
            self._recorded[action] += 1
            return True
        self._left_out[kind] += 1
        return False

    def take_untold(self, *, is_last: bool = False) -> Mapping[Kind, int]:
        """How many were left out in minutes that are over, or so far; each is given once."""
        self._turn()
        if is_last:
            self._end()
        untold, self._untold = self._untold, Counter()
        return untold

    def _turn(self) -> None:
        now = self._clock()
        if now >= self._began + MINUTE_SECONDS:
            self._end()
            self._began, self._recorded = now, Counter()

    def _end(self) -> None:
        self._untold += self._left_out
        self._left_out = Counter()
