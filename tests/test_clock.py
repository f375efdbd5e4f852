"""The clock of a serving process, which nobody sets."""

from datetime import UTC, datetime

import pytest

from broker.clock import SteadyClock


class _Machine:
    """A machine's two clocks: the one on the wall can be set."""

    def __init__(self) -> None:
        self.wall = datetime(2026, 1, 1, 12, 0, tzinfo=UTC).timestamp()
        self.passed = 500.0

    def run(self, seconds: float) -> None:
        self.wall += seconds
        self.passed += seconds


@pytest.fixture
def machine() -> _Machine:
    return _Machine()


@pytest.fixture
def clock(machine: _Machine) -> SteadyClock:
    return SteadyClock(lambda: machine.wall, lambda: machine.passed)


def test_it_shows_the_time_and_runs_with_it(machine: _Machine, clock: SteadyClock) -> None:
    assert clock.now() == datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
    machine.run(90)
    assert clock.now() == datetime(2026, 1, 1, 12, 1, 30, tzinfo=UTC)
    assert clock.epoch() == clock.now().timestamp()


@pytest.mark.parametrize("minutes", [5, -5, 50, -50])
def test_a_clock_that_is_set_meanwhile_does_not_move_it(
    machine: _Machine, clock: SteadyClock, minutes: int
) -> None:
    before = clock.epoch()
    machine.wall += 60 * minutes
    machine.run(10)
    assert clock.epoch() == before + 10


def test_a_machine_that_had_no_idea_of_the_time_is_believed_when_it_is_set(
    machine: _Machine, clock: SteadyClock
) -> None:
    machine.wall += 86_400
    assert clock.now() == datetime(2026, 1, 2, 12, 0, tzinfo=UTC)
    machine.run(10)
    assert clock.epoch() == machine.wall


def test_the_machines_own_clocks_agree_at_first() -> None:
    assert abs((SteadyClock().now() - datetime.now(UTC)).total_seconds()) < 5
