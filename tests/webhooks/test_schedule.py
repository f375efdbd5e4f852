"""When an event is sent again, as the specification's table has it."""

from datetime import timedelta

from broker.webhooks.delivery import Outcome
from broker.webhooks.schedule import WAITS, next_attempt
from tests.support.clock import ManualClock

FAILED = Outcome("http_500")


def test_the_waits_are_those_that_the_specification_recommends() -> None:
    reached = [sum(WAITS[: n + 1], timedelta()) for n in range(len(WAITS))]
    assert [str(moment) for moment in reached] == [
        "0:00:05",
        "0:05:05",
        "0:35:05",
        "2:35:05",
        "7:35:05",
        "17:35:05",
        "1 day, 7:35:05",
        "2 days, 3:35:05",
        "3 days, 3:35:05",
    ]


def test_each_wait_has_jitter_and_the_last_attempt_has_none_after_it(clock: ManualClock) -> None:
    for attempts, wait in enumerate(WAITS, start=1):
        moments = [next_attempt(attempts, FAILED, clock.now()) for _ in range(20)]
        waits = {moment - clock.now() for moment in moments if moment is not None}
        assert len(waits) > 1
        assert wait * 0.8 <= min(waits) <= max(waits) <= wait * 1.2
    assert next_attempt(len(WAITS) + 1, FAILED, clock.now()) is None


def test_retry_after_prolongs_a_wait_and_never_shortens_it(clock: ManualClock) -> None:
    for asked, expected in ((timedelta(hours=1), timedelta(hours=1)), (timedelta(0), WAITS[0] / 2)):
        until = next_attempt(1, Outcome("http_503", retry_after=asked), clock.now())
        assert until is not None
        assert until - clock.now() >= expected
