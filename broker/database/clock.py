"""The database's clock, kept by each replica, so that all agree on when a token expires.

A replica's own clock may be minutes off; its distance from the database's is measured with each
look, and the last known one goes on being used while the database is away. An answer that was slow
to come is believed, too, for as much as it tells.
"""

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta

from broker.clock import Clock

logger = logging.getLogger(__name__)

_FOLLOWED = timedelta(hours=1)
"""Beyond this, one of the clocks is wrong in a way that following it would only spread."""

_STEADY = timedelta(milliseconds=100)
"""Differences below this are the network's, not the clocks'."""


@dataclass(frozen=True, slots=True)
class _Range:
    """How far the database's clock is ahead: at least, and at most."""

    least: timedelta
    most: timedelta

    @property
    def middle(self) -> timedelta:
        return (self.least + self.most) / 2

    @property
    def width(self) -> timedelta:
        return self.most - self.least

    def narrowed_by(self, told: "_Range") -> "_Range":
        """What both allow. Where that is nothing, one of the clocks drifted, or was set: then what
        is told counts, and of it what is nearest to what was known, if that was more exact.
        """
        both = _Range(max(self.least, told.least), min(self.most, told.most))
        if both.least <= both.most:
            return both
        if self.width >= told.width:
            return told
        if self.most < told.least:
            return _Range(told.least, told.least + self.width)
        return _Range(told.most - self.width, told.most)


class DatabaseClock:
    """A `Clock` that runs like the machine's own, set by the database's."""

    def __init__(self, own: Clock) -> None:
        self._own = own
        self._ahead = timedelta(0)
        self._ahead_seconds = 0.0
        self._known: _Range | None = None
        self._complained = False

    @property
    def ahead(self) -> timedelta:
        """How far the database's clock is ahead of the machine's."""
        return self._ahead

    def now(self) -> datetime:
        return self._own.now() + self._ahead

    def epoch(self) -> float:
        return self._own.epoch() + self._ahead_seconds

    def learn(self, database_time: datetime, *, asked_at: datetime, answered_at: datetime) -> None:
        """Take in what the database said, between two readings of the machine's own clock.

        It said so at some time between the two; the longer that took, the less it tells. Off by
        half of what the quickest answer took, and `_STEADY`, is the most that `now` is then.
        """
        if answered_at < asked_at:
            return
        told = _Range(database_time - answered_at, database_time - asked_at)
        if min(abs(told.least), abs(told.most)) > _FOLLOWED:
            self._complain(told.middle)
            return
        self._known = told if self._known is None else self._known.narrowed_by(told)
        ahead = self._known.middle
        if abs(ahead - self._ahead) > _STEADY:
            self._ahead = ahead
            self._ahead_seconds = ahead.total_seconds()

    def _complain(self, ahead: timedelta) -> None:
        if not self._complained:
            self._complained = True
            logger.error(
                "this machine's clock and the database's are too far apart to be a drift",
                extra={"seconds": round(ahead.total_seconds())},
            )

    @property
    def own(self) -> Clock:
        """The machine's clock, to read around a question to the database."""
        return self._own
