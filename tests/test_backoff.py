"""Exponential back-off with jitter, and the value of `Retry-After`."""

import random
from datetime import timedelta

import pytest

from broker.backoff import NO_JITTER, TWENTY_PERCENT, Backoff, Jitter, jittered, retry_after

SECOND = timedelta(seconds=1)


@pytest.mark.parametrize(
    ("failures", "seconds"),
    [(-1, 0), (0, 0), (1, 2), (2, 4), (3, 8), (5, 32), (6, 60), (7, 60), (1_000_000, 60)],
)
def test_the_pause_doubles_with_each_failure_up_to_the_longest(failures: int, seconds: int) -> None:
    backoff = Backoff(2 * SECOND, 60 * SECOND, NO_JITTER)

    assert backoff.pause(failures) == seconds * SECOND


def test_a_start_above_the_longest_pause_is_cut_to_it() -> None:
    assert Backoff(90 * SECOND, 60 * SECOND, NO_JITTER).pause(1) == 60 * SECOND


@pytest.mark.parametrize("jitter", [TWENTY_PERCENT, (0.8, 1.0), (0.5, 1.5)])
def test_jitter_spreads_the_pause_between_its_two_factors(
    jitter: Jitter, monkeypatch: pytest.MonkeyPatch
) -> None:
    least, greatest = jitter
    backoff = Backoff(10 * SECOND, 60 * SECOND, jitter)

    pauses = [backoff.pause(2) for _ in range(200)]

    assert all(20 * SECOND * least <= pause <= 20 * SECOND * greatest for pause in pauses)
    assert len(set(pauses)) > 1
    monkeypatch.setattr(random, "uniform", lambda least, _greatest: least)
    assert backoff.pause(2) == 20 * SECOND * least
    monkeypatch.setattr(random, "uniform", lambda _least, greatest: greatest)
    assert backoff.pause(2) == 20 * SECOND * greatest


def test_jitter_applies_after_the_cut_to_the_longest_pause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(random, "uniform", lambda _least, greatest: greatest)

    assert Backoff(SECOND, 10 * SECOND).pause(20) == 12 * SECOND


def test_a_fixed_pause_can_be_jittered_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "uniform", lambda least, _greatest: least)

    assert jittered(10 * SECOND) == 8 * SECOND
    assert jittered(10 * SECOND, NO_JITTER) == 10 * SECOND


@pytest.mark.parametrize(
    ("wait", "seconds"),
    [
        (0, 1),
        (0.2, 1),
        (1, 1),
        (1.01, 2),
        (-5, 1),
        (30 * SECOND, 30),
        (timedelta(milliseconds=30_001), 31),
        (timedelta(0), 1),
    ],
)
def test_retry_after_is_whole_seconds_rounded_up(wait: timedelta | float, seconds: int) -> None:
    assert retry_after(wait) == seconds
