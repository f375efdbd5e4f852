"""Token buckets: an even rate, bursts after a rest, and what is owed is paid off."""

import pytest

from broker.limits.rate import TokenBucket
from broker.limits.unauthenticated import Strangers
from tests.support.clock import ManualClock


def test_as_many_as_its_burst_at_once_and_then_one_by_one() -> None:
    bucket = TokenBucket(per_second=10, burst=3)
    assert [bucket.take(100.0) for _ in range(3)] == [0, 0, 0]
    assert bucket.take(100.0) == pytest.approx(0.1)
    assert bucket.take(100.1) == 0
    assert bucket.take(100.1) == pytest.approx(0.1)


def test_who_waits_as_long_as_it_is_told_gets_one() -> None:
    bucket = TokenBucket(per_second=0.3, burst=1)
    now = 5.0
    for _ in range(1000):
        assert bucket.take(now) == 0
        now += bucket.take(now)


def test_a_refusal_takes_nothing() -> None:
    bucket = TokenBucket(per_second=1, burst=1)
    bucket.take(0.0)
    assert {round(bucket.take(0.5), 6) for _ in range(100)} == {0.5}
    assert bucket.take(1.0) == 0


def test_a_rest_saves_up_no_more_than_the_burst() -> None:
    bucket = TokenBucket(per_second=10, burst=2)
    bucket.take(0.0)
    assert [bucket.take(1e6) == 0 for _ in range(3)] == [True, True, False]


def test_a_charge_beyond_the_burst_is_owed_and_paid_off() -> None:
    bucket = TokenBucket(per_second=100, burst=10)
    assert bucket.take(0.0) == 0
    assert bucket.charge(0.0, 999) == 0
    assert bucket.charge(0.0, 1) == pytest.approx(9.9)
    assert bucket.take(0.0) == pytest.approx(9.91)
    assert bucket.take(9.92) == 0


def test_looking_takes_nothing() -> None:
    bucket = TokenBucket(per_second=1, burst=1)
    assert [bucket.wait(0.0), bucket.take(0.0)] == [0, 0]
    assert bucket.wait(0.25) == bucket.wait(0.25) == pytest.approx(0.75)


def test_one_address_takes_nothing_from_another() -> None:
    strangers = Strangers(per_second=1, burst=1, clock=ManualClock().epoch)
    assert strangers.take("192.0.2.1") == 0
    assert strangers.take("192.0.2.1") > 0
    assert strangers.take("192.0.2.2") == 0


def test_the_memory_of_addresses_is_bounded_and_who_keeps_coming_stays_in_it() -> None:
    strangers = Strangers(per_second=1, burst=1, clock=ManualClock().epoch, at_most=3)
    strangers.take("tiresome")
    for number in range(100):
        strangers.take(f"address {number}")
        assert strangers.wait("tiresome") > 0
        assert strangers.take("tiresome") > 0
    assert len(strangers) == 3
