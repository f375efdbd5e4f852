"""The database's clock, kept by each replica, so that all agree on when a token expires.

A replica's own clock may be minutes off; its distance from the database's is measured with each
look, and the last known one goes on being used while the database is away.
"""

import logging
from datetime import datetime, timedelta

from broker.clock import Clock

logger = logging.getLogger(__name__)

_TRUSTED_TRIP = timedelta(milliseconds=250)
_FOLLOWED = timedelta(hours=1)
"""Beyond this, one of the clocks is wrong in a way that following it would only spread."""

_STEADY = timedelta(milliseconds=100)
"""Differences below this are the network's, not the clocks'."""


class DatabaseClock:
    """A `Clock` that runs like the machine's own, set by the database's."""

    def __init__(self, own: Clock) -> None:
        self._own = own
        self._ahead = timedelta(0)
        self._ahead_seconds = 0.0
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
        """Take in what the database said, between two readings of the machine's own clock."""
        trip = answered_at - asked_at
        if not timedelta(0) <= trip <= _TRUSTED_TRIP:
            return
        ahead = database_time - (asked_at + trip / 2)
        if abs(ahead) > _FOLLOWED:
            self._complain(ahead)
        elif abs(ahead - self._ahead) > _STEADY:
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
