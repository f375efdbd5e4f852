"""Per-minute cap on audit records that unauthenticated clients cause; the rest is only counted.

Unauthenticated clients share one limit per action. A browser with a link is known by the link's
user: each user has a small limit for failures in browsers with that user's links. Records of what
a caller itself did are never capped.
"""

import time
from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from typing import NamedTuple

RECORDS_PER_MINUTE = 60
"""For each action of unauthenticated clients, in each replica.

A limit for each action: junk on the public listener must not hide key guessing on the internal one.
"""

RECORDS_PER_USER_PER_MINUTE = 5
"""For each action and outcome of browsers with links of one user, in each replica."""

MAX_USERS = 1000
"""Kinds counted per user, in one minute. Beyond, all users of one caller share a kind."""

MINUTE_SECONDS = 60.0


class CappedKind(NamedTuple):
    """Events that are counted together. The number of kinds without a caller is bounded."""

    action: str
    outcome: str
    caller: str | None = None
    """For events with a link, the caller that made it; None for unauthenticated clients."""
    user_id: str | None = None


class UnauthenticatedCap:
    """Decides which events get a record, and counts those that don't."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` returns seconds, and never goes back."""
        self._clock = clock
        self._began = clock()
        self._recorded: Counter[Hashable] = Counter()
        self._left_out: Counter[CappedKind] = Counter()
        self._unreported: Counter[CappedKind] = Counter()
        """Left out in earlier minutes, and not yet in a summary record."""

    def admit(self, kind: CappedKind, *, has_room: bool) -> bool:
        """True if the event gets a record; otherwise it is counted."""
        self._start_minute_if_due()
        limit_key: Hashable = kind.action
        limit = RECORDS_PER_MINUTE
        if kind.caller is not None:
            is_full = not has_room or len(self._recorded) >= MAX_USERS
            if is_full and kind not in self._recorded:
                kind = kind._replace(user_id=None)
            limit_key, limit = kind, RECORDS_PER_USER_PER_MINUTE
        if has_room and self._recorded[limit_key] < limit:
            self._recorded[limit_key] += 1
            return True
        self._left_out[kind] += 1
        return False

    def pop_left_out(self, *, is_last: bool = False) -> Mapping[CappedKind, int]:
        """Return the counts of earlier minutes, each once; `is_last` adds the current minute."""
        self._start_minute_if_due()
        if is_last:
            self._end_minute()
        unreported, self._unreported = self._unreported, Counter()
        return unreported

    def _start_minute_if_due(self) -> None:
        now = self._clock()
        if now >= self._began + MINUTE_SECONDS:
            self._end_minute()
            self._began, self._recorded = now, Counter()

    def _end_minute(self) -> None:
        for kind, count in self._left_out.items():
            is_full = len(self._unreported) >= MAX_USERS and kind not in self._unreported
            self._unreported[kind._replace(user_id=None) if is_full else kind] += count
        self._left_out = Counter()
