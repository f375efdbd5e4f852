"""The database's clock on each replica, so that all replicas agree on when a token expires.

A replica's own clock may be minutes off. Its offset from the database's clock is measured at each
poll by Cristian's algorithm, and the last known offset is used while the database is unavailable. A
slow answer counts too, with its lower accuracy.
"""

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta

from broker.clock import Clock

logger = logging.getLogger(__name__)

_MAX_OFFSET = timedelta(hours=1)
"""A larger offset means that one of the clocks is wrong; following it would spread the error."""

_TOLERANCE = timedelta(milliseconds=100)
"""Smaller differences are attributed to the network, not to the clocks."""


@dataclass(frozen=True, slots=True)
class _OffsetRange:
    """The least and the most that the database's clock is ahead of the machine's."""

    least: timedelta
    most: timedelta

    @property
    def middle(self) -> timedelta:
        return (self.least + self.most) / 2

    @property
    def width(self) -> timedelta:
        return self.most - self.least

    def narrowed_by(self, measured: "_OffsetRange") -> "_OffsetRange":
        """Return the intersection with a new measurement.

        If it is empty, one of the clocks drifted or was set: the measurement counts then. If the
        known range was narrower, the part of the measurement that is nearest to it counts.
        """
        both = _OffsetRange(max(self.least, measured.least), min(self.most, measured.most))
        if both.least <= both.most:
            return both
        if self.width >= measured.width:
            return measured
        if self.most < measured.least:
            return _OffsetRange(measured.least, measured.least + self.width)
        return _OffsetRange(measured.most - self.width, measured.most)


class DatabaseClock:
    """A `Clock` that runs like the machine's own, set to the database's."""

    def __init__(self, own: Clock) -> None:
        self._own = own
        self._offset = timedelta(0)
        self._offset_seconds = 0.0
        self._known: _OffsetRange | None = None
        self._has_reported = False

    @property
    def offset(self) -> timedelta:
        """How far the database's clock is ahead of the machine's."""
        return self._offset

    def now(self) -> datetime:
        return self._own.now() + self._offset

    def epoch(self) -> float:
        return self._own.epoch() + self._offset_seconds

    def adjust(self, database_time: datetime, *, asked_at: datetime, answered_at: datetime) -> None:
        """Follow the database's time, read between two readings of the machine's own clock.

        Cristian's algorithm: `now` is then wrong by at most half of the fastest round trip, plus
        `_TOLERANCE`.
        """
        if answered_at < asked_at:
            return
        measured = _OffsetRange(database_time - answered_at, database_time - asked_at)
        if min(abs(measured.least), abs(measured.most)) > _MAX_OFFSET:
            self._report(measured.middle)
            return
        self._known = measured if self._known is None else self._known.narrowed_by(measured)
        offset = self._known.middle
        if abs(offset - self._offset) > _TOLERANCE:
            self._offset = offset
            self._offset_seconds = offset.total_seconds()

    def _report(self, offset: timedelta) -> None:
        if not self._has_reported:
            self._has_reported = True
            logger.error(
                "the clocks of this machine and of PostgreSQL differ by more than an hour: this "
                "replica uses its own clock; correct the wrong one",
                extra={
                    "event": "clock_offset_too_large",
                    "seconds": round(offset.total_seconds()),
                },
            )

    @property
    def own(self) -> Clock:
        """The machine's clock, to be read before and after a query for the database's time."""
        return self._own
