"""When an event is sent again, and how many events are sent at a time."""

from datetime import timedelta

import pytest

from broker.webhooks.delivery import MAX_CONCURRENT, DeliveryResult
from broker.webhooks.retry_schedule import RETRY_PAUSES, ReceiverPace, next_attempt
from tests.support.clock import ManualClock

OK, FAILED = DeliveryResult(None), DeliveryResult("http_500")


def test_the_pauses_are_those_that_standard_webhooks_recommends() -> None:
    reached = [sum(RETRY_PAUSES[: n + 1], timedelta()) for n in range(len(RETRY_PAUSES))]
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


@pytest.mark.parametrize(("attempts", "pause"), [*enumerate(RETRY_PAUSES, start=1)])
def test_each_pause_has_jitter(clock: ManualClock, attempts: int, pause: timedelta) -> None:
    moments = [next_attempt(attempts, FAILED, clock.now()) for _ in range(20)]
    pauses = {moment - clock.now() for moment in moments if moment is not None}
    assert len(pauses) > 1
    assert pause * 0.8 <= min(pauses) <= max(pauses) <= pause * 1.2


def test_there_is_no_attempt_after_the_last_pause(clock: ManualClock) -> None:
    assert next_attempt(len(RETRY_PAUSES) + 1, FAILED, clock.now()) is None


@pytest.mark.parametrize(
    ("retry_after", "least"),
    [(timedelta(hours=1), timedelta(hours=1)), (timedelta(0), RETRY_PAUSES[0] / 2)],
)
def test_retry_after_extends_a_pause_and_never_shortens_it(
    clock: ManualClock, retry_after: timedelta, least: timedelta
) -> None:
    until = next_attempt(1, DeliveryResult("http_503", retry_after=retry_after), clock.now())
    assert until is not None
    assert until - clock.now() >= least


@pytest.mark.parametrize(
    ("results", "limit"),
    [
        ([], MAX_CONCURRENT),
        ([FAILED] * 4, MAX_CONCURRENT),
        ([FAILED] * 5, 1),
        ([FAILED] * 5 + [OK], MAX_CONCURRENT),
        ([DeliveryResult("http_503", is_throttling=True)], 0),
        ([DeliveryResult("http_410", is_gone=True)], 0),
        ([DeliveryResult("http_503", retry_after=timedelta(minutes=1))], 0),
    ],
)
def test_the_limit_follows_the_results(
    clock: ManualClock, results: list[DeliveryResult], limit: int
) -> None:
    pace = ReceiverPace(clock)
    for result in results:
        pace.note(result)
    assert pace.limit() == limit


@pytest.mark.parametrize(
    ("result", "pause"),
    [
        (DeliveryResult("http_503", is_throttling=True), timedelta(seconds=5)),
        (DeliveryResult("http_410", is_gone=True), timedelta(hours=1)),
        (
            DeliveryResult("http_410", is_gone=True, retry_after=timedelta(seconds=1)),
            timedelta(hours=1),
        ),
        (DeliveryResult("http_429", retry_after=timedelta(minutes=3)), timedelta(minutes=3)),
    ],
)
def test_a_pause_ends_in_time(clock: ManualClock, result: DeliveryResult, pause: timedelta) -> None:
    pace = ReceiverPace(clock)
    pace.note(result)
    clock.advance(pause - timedelta(seconds=1))
    assert pace.limit() == 0
    clock.advance(timedelta(seconds=1))
    assert pace.limit() == MAX_CONCURRENT


def test_a_later_result_does_not_shorten_a_pause(clock: ManualClock) -> None:
    pace = ReceiverPace(clock)
    pace.note(DeliveryResult("http_429", retry_after=timedelta(minutes=3)))
    pace.note(DeliveryResult("http_429", retry_after=timedelta(seconds=1)))
    clock.advance(timedelta(minutes=2))
    assert pace.limit() == 0
