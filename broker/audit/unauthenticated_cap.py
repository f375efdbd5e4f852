"""How many audit records those may cause who are bound by nothing: so many a minute, the rest is
counted.

Strangers, whom nobody knows, share one bound. Whoever has a link is known by its user: each user
has a small share for what browsers do in vain with links of theirs. What a caller itself did is
none of this module's business, and never left out by it.
"""

import time
from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from typing import NamedTuple

RECORDED_A_MINUTE = 60
"""Of each action of strangers, in each replica: junk on the public listener hides no guessing of
keys on the internal one.
"""

RECORDED_OF_A_USER_A_MINUTE = 5
"""Of each action and outcome of browsers with links of one user, in each replica."""

USERS_AT_MOST = 1000
"""Kinds of links' records that are told apart by user, in one minute. Of those beyond, all users of
one caller are one."""

MINUTE_SECONDS = 60.0


class Kind(NamedTuple):
    """What is counted together; of strangers there is a bounded number."""

    action: str
    outcome: str
    caller: str | None = None
    """Of a link's records, the caller that made it. Strangers' records have none."""
    user_id: str | None = None


class StrangerShare:
    """Says which are recorded, and how many of each kind were not."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` gives seconds, and never goes back."""
        self._clock = clock
        self._began = clock()
        self._recorded: Counter[Hashable] = Counter()
        self._left_out: Counter[Kind] = Counter()
        self._untold: Counter[Kind] = Counter()
        """Of minutes that are over."""

    def takes(self, kind: Kind, *, has_room: bool) -> bool:
        """Whether this one is recorded; else it is counted."""
        self._turn()
        share: Hashable = kind.action
        at_most = RECORDED_A_MINUTE
        if kind.caller is not None:
            is_full = not has_room or len(self._recorded) >= USERS_AT_MOST
            if is_full and kind not in self._recorded:
                kind = kind._replace(user_id=None)
            share, at_most = kind, RECORDED_OF_A_USER_A_MINUTE
        if has_room and self._recorded[share] < at_most:
            self._recorded[share] += 1
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
        for kind, count in self._left_out.items():
            is_full = len(self._untold) >= USERS_AT_MOST and kind not in self._untold
            self._untold[kind._replace(user_id=None) if is_full else kind] += count
        self._left_out = Counter()
