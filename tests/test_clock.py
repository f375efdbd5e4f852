"""`SteadyClock` ignores small steps of the machine's clock and follows large ones."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from broker.clock import SteadyClock, rfc3339


class _Machine:
    """A machine with a wall clock, which can be set, and an elapsed-time clock, which can't."""

    def __init__(self) -> None:
        self.wall = datetime(2026, 1, 1, 12, 0, tzinfo=UTC).timestamp()
        self.elapsed = 500.0

    def run(self, seconds: float) -> None:
        self.wall += seconds
        self.elapsed += seconds


@pytest.fixture
def machine() -> _Machine:
    return _Machine()


@pytest.fixture
def clock(machine: _Machine) -> SteadyClock:
    return SteadyClock(lambda: machine.wall, lambda: machine.elapsed)


def test_it_shows_and_follows_the_wall_clock(machine: _Machine, clock: SteadyClock) -> None:
    assert clock.now() == datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
    machine.run(90)
    assert clock.now() == datetime(2026, 1, 1, 12, 1, 30, tzinfo=UTC)
    assert clock.epoch() == clock.now().timestamp()


@pytest.mark.parametrize("minutes", [5, -5, 50, -50])
def test_a_step_of_less_than_an_hour_is_ignored(
    machine: _Machine, clock: SteadyClock, minutes: int
) -> None:
    before = clock.epoch()
    machine.wall += 60 * minutes
    machine.run(10)
    assert clock.epoch() == before + 10


def test_a_step_of_more_than_an_hour_is_followed(machine: _Machine, clock: SteadyClock) -> None:
    machine.wall += 86_400
    assert clock.now() == datetime(2026, 1, 2, 12, 0, tzinfo=UTC)
    machine.run(10)
    assert clock.epoch() == machine.wall


def test_without_arguments_it_uses_the_machines_clocks() -> None:
    assert abs((SteadyClock().now() - datetime.now(UTC)).total_seconds()) < 5


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "2026-01-02T03:04:05Z"),
        (datetime(2026, 1, 2, 3, 4, 5, 999_999, tzinfo=UTC), "2026-01-02T03:04:05Z"),
        (datetime(2026, 1, 2, 3, 4, tzinfo=timezone(timedelta(hours=9))), "2026-01-01T18:04:00Z"),
    ],
)
def test_rfc3339_is_utc_in_whole_seconds(moment: datetime, text: str) -> None:
    assert rfc3339(moment) == text
