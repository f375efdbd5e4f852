"""The database's clock is followed through whatever network there is, as exactly as it allows."""

import logging
from collections.abc import Sequence
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.database.clock import DatabaseClock
from tests.support.clock import ManualClock

STEADY = timedelta(milliseconds=101)
"""Not followed, and what rounding takes."""


class Replica:
    """A machine whose clock is wrong, and the database that it asks."""

    def __init__(self, database_ahead: timedelta) -> None:
        self.own = ManualClock()
        self.clock = DatabaseClock(self.own)
        self.database_ahead = database_ahead

    def ask(self, trip: timedelta, *, share_there: float = 0.5) -> None:
        """One look: the database reads its clock after that share of the whole trip."""
        asked_at = self.own.now()
        self.own.advance(trip * share_there)
        said = self.own.now() + self.database_ahead
        self.own.advance(trip * (1 - share_there))
        self.clock.learn(said, asked_at=asked_at, answered_at=self.own.now())

    @property
    def error(self) -> timedelta:
        return abs(self.clock.now() - (self.own.now() + self.database_ahead))


@pytest.mark.parametrize("share_there", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("trip", [timedelta(milliseconds=251), timedelta(seconds=3)])
def test_a_clock_minutes_off_is_set_right_though_every_answer_is_slow(
    trip: timedelta, share_there: float
) -> None:
    replica = Replica(timedelta(minutes=-7))
    for _ in range(3):
        replica.ask(trip, share_there=share_there)
    assert replica.error <= trip / 2 + STEADY


def test_a_quick_answer_is_worth_more_than_the_slow_ones_before() -> None:
    replica = Replica(timedelta(minutes=7))
    replica.ask(timedelta(seconds=6), share_there=1.0)
    assert replica.error > timedelta(seconds=1)
    replica.ask(timedelta(milliseconds=2))
    assert replica.error <= STEADY


@pytest.mark.parametrize("drift", [timedelta(0), timedelta(milliseconds=40)])
def test_a_slow_answer_does_not_spoil_what_a_quick_one_told(drift: timedelta) -> None:
    replica = Replica(timedelta(minutes=7))
    replica.ask(timedelta(milliseconds=2))
    for share_there in (0.0, 1.0):
        for sign in (1, -1):
            replica.database_ahead += drift * sign
            replica.ask(timedelta(seconds=6), share_there=share_there)
            assert replica.error <= STEADY


@pytest.mark.parametrize("jump", [timedelta(minutes=5), timedelta(minutes=-5)])
@pytest.mark.parametrize("share_there", [0.0, 0.5, 1.0])
def test_a_failover_to_another_clock_is_followed_by_slow_answers_too(
    jump: timedelta, share_there: float
) -> None:
    replica = Replica(timedelta(minutes=7))
    replica.ask(timedelta(milliseconds=2))
    replica.database_ahead += jump
    trip = timedelta(seconds=2)
    replica.ask(trip, share_there=share_there)
    assert replica.error <= trip + STEADY
    replica.ask(timedelta(milliseconds=2))
    assert replica.error <= STEADY


_TRIPS = st.tuples(st.floats(0, 8), st.floats(0, 1))


@given(
    ahead=st.floats(-3000, 3000),
    trips=st.lists(_TRIPS, min_size=1, max_size=8),
)
def test_it_is_off_by_no_more_than_half_of_what_the_quickest_answer_took(
    ahead: float, trips: Sequence[tuple[float, float]]
) -> None:
    replica = Replica(timedelta(seconds=ahead))
    for seconds, share_there in trips:
        replica.ask(timedelta(seconds=seconds), share_there=share_there)
    quickest = timedelta(seconds=min(seconds for seconds, _ in trips))
    assert replica.error <= quickest / 2 + STEADY


def test_the_two_readings_go_together() -> None:
    replica = Replica(timedelta(minutes=7))
    replica.ask(timedelta(seconds=3))
    assert replica.clock.epoch() == pytest.approx(replica.clock.now().timestamp())


@pytest.mark.parametrize("trip", [timedelta(milliseconds=2), timedelta(seconds=6)])
def test_a_clock_hours_off_is_not_followed_and_told_once(
    trip: timedelta, caplog: pytest.LogCaptureFixture
) -> None:
    replica = Replica(timedelta(hours=2))
    for _ in range(3):
        replica.ask(trip)
    assert replica.clock.ahead == timedelta(0)
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


def test_an_answer_from_before_the_question_tells_nothing() -> None:
    replica = Replica(timedelta(minutes=7))
    now = replica.own.now()
    replica.clock.learn(now, asked_at=now, answered_at=now - timedelta(seconds=1))
    assert replica.clock.ahead == timedelta(0)
