"""GCRA: an even rate, bursts after a rest, debts that are paid off; and one limit per address."""

import pytest

from broker.limits.rate import AddressRateLimits, Gcra
from tests.support.clock import ManualClock


def test_a_burst_is_admitted_and_then_the_even_rate() -> None:
    limit = Gcra(per_second=10, burst=3)
    assert [limit.admit(100.0) for _ in range(3)] == [0, 0, 0]
    assert limit.admit(100.0) == pytest.approx(0.1)
    assert limit.admit(100.1) == 0
    assert limit.admit(100.1) == pytest.approx(0.1)


def test_a_request_after_the_wait_is_admitted() -> None:
    limit = Gcra(per_second=0.3, burst=1)
    now = 5.0
    for _ in range(1000):
        assert limit.admit(now) == 0
        now += limit.admit(now)


def test_a_rejected_request_is_not_counted() -> None:
    limit = Gcra(per_second=1, burst=1)
    limit.admit(0.0)
    assert {round(limit.admit(0.5), 6) for _ in range(100)} == {0.5}
    assert limit.admit(1.0) == 0


def test_a_rest_saves_up_no_more_than_the_burst() -> None:
    limit = Gcra(per_second=10, burst=2)
    limit.admit(0.0)
    assert [limit.admit(1e6) == 0 for _ in range(3)] == [True, True, False]


def test_a_charge_beyond_the_burst_is_owed_and_paid_off() -> None:
    limit = Gcra(per_second=100, burst=10)
    assert limit.admit(0.0) == 0
    assert limit.charge(0.0, 999) == 0
    assert limit.charge(0.0, 1) == pytest.approx(9.9)
    assert limit.admit(0.0) == pytest.approx(9.91)
    assert limit.admit(9.92) == 0


def test_the_seconds_to_wait_are_read_without_counting_a_request() -> None:
    limit = Gcra(per_second=1, burst=1)
    assert [limit.seconds_to_wait(0.0), limit.admit(0.0)] == [0, 0]
    assert limit.seconds_to_wait(0.25) == limit.seconds_to_wait(0.25) == pytest.approx(0.75)


def test_addresses_are_limited_separately() -> None:
    limits = AddressRateLimits(per_second=1, burst=1, clock=ManualClock().epoch)
    assert limits.admit("192.0.2.1") == 0
    assert limits.admit("192.0.2.1") > 0
    assert limits.admit("192.0.2.2") == 0


def test_the_addresses_are_bounded_and_an_address_in_use_is_not_evicted() -> None:
    limits = AddressRateLimits(per_second=1, burst=1, clock=ManualClock().epoch, at_most=3)
    limits.admit("tiresome")
    for number in range(100):
        limits.admit(f"address {number}")
        assert limits.seconds_to_wait("tiresome") > 0
        assert limits.admit("tiresome") > 0
    assert len(limits) == 3


def test_an_unknown_address_need_not_wait() -> None:
    limits = AddressRateLimits(per_second=1, burst=1, clock=ManualClock().epoch)
    assert limits.seconds_to_wait("192.0.2.1") == 0
    assert len(limits) == 0
