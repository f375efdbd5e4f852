"""A replica follows the database's clock as accurately as the network allows."""

import logging
from collections.abc import Sequence
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.database.clock import DatabaseClock
from tests.support.clock import ManualClock

TOLERANCE = timedelta(milliseconds=101)
"""The clock's own tolerance, and the rounding error."""


class Replica:
    """A machine with a wrong clock, and the database that it polls."""

    def __init__(self, database_ahead: timedelta) -> None:
        self.own = ManualClock()
        self.clock = DatabaseClock(self.own)
        self.database_ahead = database_ahead

    def poll(self, round_trip: timedelta, *, share_there: float = 0.5) -> None:
        """Poll once: the database reads its clock after `share_there` of the round trip."""
        asked_at = self.own.now()
        self.own.advance(round_trip * share_there)
        database_time = self.own.now() + self.database_ahead
        self.own.advance(round_trip * (1 - share_there))
        self.clock.adjust(database_time, asked_at=asked_at, answered_at=self.own.now())

    @property
    def error(self) -> timedelta:
        return abs(self.clock.now() - (self.own.now() + self.database_ahead))


@pytest.mark.parametrize("share_there", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("round_trip", [timedelta(milliseconds=251), timedelta(seconds=3)])
def test_an_offset_of_minutes_is_corrected_by_slow_answers(
    round_trip: timedelta, share_there: float
) -> None:
    replica = Replica(timedelta(minutes=-7))
    for _ in range(3):
        replica.poll(round_trip, share_there=share_there)
    assert replica.error <= round_trip / 2 + TOLERANCE


def test_a_fast_answer_improves_on_slow_ones() -> None:
    replica = Replica(timedelta(minutes=7))
    replica.poll(timedelta(seconds=6), share_there=1.0)
    assert replica.error > timedelta(seconds=1)
    replica.poll(timedelta(milliseconds=2))
    assert replica.error <= TOLERANCE


@pytest.mark.parametrize("drift", [timedelta(0), timedelta(milliseconds=40)])
def test_a_slow_answer_does_not_spoil_a_fast_one(drift: timedelta) -> None:
    replica = Replica(timedelta(minutes=7))
    replica.poll(timedelta(milliseconds=2))
    for share_there in (0.0, 1.0):
        for sign in (1, -1):
            replica.database_ahead += drift * sign
            replica.poll(timedelta(seconds=6), share_there=share_there)
            assert replica.error <= TOLERANCE


@pytest.mark.parametrize("jump", [timedelta(minutes=5), timedelta(minutes=-5)])
@pytest.mark.parametrize("share_there", [0.0, 0.5, 1.0])
def test_a_failover_to_a_server_with_another_clock_is_followed(
    jump: timedelta, share_there: float
) -> None:
    replica = Replica(timedelta(minutes=7))
    replica.poll(timedelta(milliseconds=2))
    replica.database_ahead += jump
    round_trip = timedelta(seconds=2)
    replica.poll(round_trip, share_there=share_there)
    assert replica.error <= round_trip + TOLERANCE
    replica.poll(timedelta(milliseconds=2))
    assert replica.error <= TOLERANCE


_ROUND_TRIPS = st.tuples(st.floats(0, 8), st.floats(0, 1))


@given(
    ahead=st.floats(-3000, 3000),
    round_trips=st.lists(_ROUND_TRIPS, min_size=1, max_size=8),
)
def test_the_error_is_at_most_half_of_the_fastest_round_trip(
    ahead: float, round_trips: Sequence[tuple[float, float]]
) -> None:
    replica = Replica(timedelta(seconds=ahead))
    for seconds, share_there in round_trips:
        replica.poll(timedelta(seconds=seconds), share_there=share_there)
    quickest = timedelta(seconds=min(seconds for seconds, _ in round_trips))
    assert replica.error <= quickest / 2 + TOLERANCE


def test_now_and_epoch_agree() -> None:
    replica = Replica(timedelta(minutes=7))
    replica.poll(timedelta(seconds=3))
    assert replica.clock.epoch() == pytest.approx(replica.clock.now().timestamp())


@pytest.mark.parametrize("round_trip", [timedelta(milliseconds=2), timedelta(seconds=6)])
def test_an_offset_of_hours_is_ignored_and_logged_once(
    round_trip: timedelta, caplog: pytest.LogCaptureFixture
) -> None:
    replica = Replica(timedelta(hours=2))
    for _ in range(3):
        replica.poll(round_trip)
    assert replica.clock.offset == timedelta(0)
    assert [(record.levelno, vars(record)["event"]) for record in caplog.records] == [
        (logging.ERROR, "clock_offset_too_large")
    ]


def test_an_answer_before_its_query_is_ignored() -> None:
    replica = Replica(timedelta(minutes=7))
    now = replica.own.now()
    replica.clock.adjust(now, asked_at=now, answered_at=now - timedelta(seconds=1))
    assert replica.clock.offset == timedelta(0)
