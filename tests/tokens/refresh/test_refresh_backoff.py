"""The back-off of failed refreshes, as tables over a manual clock."""

from datetime import timedelta

import pytest

from broker.backoff import NO_JITTER, Backoff
from broker.tokens.refresh import refresh_backoff as module
from broker.tokens.refresh.refresh_backoff import RefreshBackoff
from broker.tokens.results import Denial, NotGranted, google_unavailable
from tests.support.clock import ManualClock

SECOND = timedelta(seconds=1)
OUTAGE = google_unavailable()


@pytest.fixture(autouse=True)
def no_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BACKOFF", Backoff(0.5 * SECOND, 5 * SECOND, NO_JITTER))


@pytest.fixture
def backoff(clock: ManualClock) -> RefreshBackoff:
    return RefreshBackoff(clock)


def test_without_a_failure_the_next_try_is_due(backoff: RefreshBackoff) -> None:
    assert backoff.refusal("key") is None
    assert backoff.time_left("key") == timedelta(0)
    assert not backoff.has_failed_recently("key")


@pytest.mark.parametrize(
    ("failures", "seconds"), [(1, 0.5), (2, 1), (3, 2), (4, 4), (5, 5), (100, 5)]
)
def test_the_pause_grows_with_each_failure(
    backoff: RefreshBackoff, failures: int, seconds: float
) -> None:
    for _ in range(failures):
        refusal = backoff.failed("key", OUTAGE)

    assert refusal.retry_after == backoff.time_left("key") == seconds * SECOND


@pytest.mark.parametrize(
    ("requested", "seconds"), [(0.1, 0.5), (0.5, 0.5), (30, 30), (60, 60), (3600, 60)]
)
def test_googles_retry_after_is_obeyed_up_to_a_minute(
    backoff: RefreshBackoff, requested: float, seconds: float
) -> None:
    refusal = backoff.failed("key", OUTAGE, retry_after=requested * SECOND)

    assert refusal.retry_after == seconds * SECOND


def test_during_the_pause_every_request_gets_the_refusal_with_the_time_left(
    backoff: RefreshBackoff, clock: ManualClock
) -> None:
    backoff.failed("key", OUTAGE, retry_after=10 * SECOND)
    clock.advance(4 * SECOND)

    assert backoff.refusal("key") == google_unavailable(retry_after=6 * SECOND)
    assert backoff.refusal("other") is None
    clock.advance(6 * SECOND)
    assert backoff.refusal("key") is None


def test_a_denial_is_repeated_as_it_is(backoff: RefreshBackoff) -> None:
    denial = NotGranted(Denial.SCOPE_NOT_GRANTED, ("a",))

    assert backoff.failed("key", denial) == denial
    assert backoff.refusal("key") == denial


def test_a_failure_counts_as_recent_for_a_minute_after_its_pause(
    backoff: RefreshBackoff, clock: ManualClock
) -> None:
    backoff.failed("key", OUTAGE, retry_after=10 * SECOND)
    clock.advance(69 * SECOND)
    assert backoff.has_failed_recently("key")

    clock.advance(SECOND)
    assert not backoff.has_failed_recently("key")


def test_a_success_ends_the_pause_and_forgets_the_failures(backoff: RefreshBackoff) -> None:
    for _ in range(3):
        backoff.failed("key", OUTAGE)

    backoff.succeeded("key")

    assert backoff.refusal("key") is None
    assert not backoff.has_failed_recently("key")
    assert backoff.failed("key", OUTAGE).retry_after == 0.5 * SECOND


def test_a_success_without_a_failure_does_nothing(backoff: RefreshBackoff) -> None:
    backoff.succeeded("key")

    assert backoff.refusal("key") is None


def test_a_clock_that_is_set_back_prolongs_no_pause(
    backoff: RefreshBackoff, clock: ManualClock
) -> None:
    backoff.failed("key", OUTAGE, retry_after=10 * SECOND)
    clock.advance(-timedelta(minutes=5))

    assert backoff.refusal("key") is None
    assert backoff.time_left("key") == timedelta(0)


def test_the_oldest_failures_are_forgotten_beyond_the_bound(
    backoff: RefreshBackoff, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_REMEMBERED", 2)
    for key in ("one", "two", "one", "three"):
        backoff.failed(key, OUTAGE)

    assert [backoff.has_failed_recently(key) for key in ("one", "two", "three")] == [
        True,
        False,
        True,
    ]
