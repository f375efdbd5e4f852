"""The circuit breaker counts grants, not failures, and lets those that have not failed find out."""

import asyncio
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from broker.tokens.refresh import circuit_breaker as breaker_module
from broker.tokens.refresh.circuit_breaker import CircuitBreaker
from tests.support.clock import ManualClock
from tests.support.waiting import eventually

MANY = 5


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Probes may follow each other at once, and are waited for until they end."""
    monkeypatch.setattr(breaker_module, "_PACE_SECONDS", 0.0)
    monkeypatch.setattr(breaker_module, "_PROBE_SECONDS", 60.0)


@pytest.fixture
def breaker(clock: ManualClock) -> CircuitBreaker:
    return CircuitBreaker(clock)


def _grants(count: int = MANY) -> list[UUID]:
    return [uuid4() for _ in range(count)]


def _fail(breaker: CircuitBreaker, grants: Sequence[UUID]) -> None:
    for grant in grants:
        breaker.failed(grant)


async def test_one_grant_that_always_fails_opens_nothing(breaker: CircuitBreaker) -> None:
    _fail(breaker, _grants(1) * 100)
    assert not breaker.is_open


async def test_different_grants_without_a_success_open_it(breaker: CircuitBreaker) -> None:
    grants = _grants()
    _fail(breaker, grants[:-1])
    breaker.succeeded()
    _fail(breaker, grants[1:])
    assert breaker.seconds_left() == 0
    _fail(breaker, grants)
    assert breaker.is_open
    assert 0 < breaker.seconds_left() <= 2.4


async def test_of_the_grants_in_trouble_one_asks_when_the_time_is_over(
    breaker: CircuitBreaker, clock: ManualClock
) -> None:
    _fail(breaker, _grants())
    clock.advance(timedelta(seconds=3))
    assert breaker.seconds_left() == 0
    assert breaker.seconds_left() > 0


async def test_a_grant_without_trouble_probes_at_once_and_others_wait_for_it(
    breaker: CircuitBreaker,
) -> None:
    _fail(breaker, _grants())
    assert await breaker.may_probe()
    with breaker.probing(uuid4()):
        waiting = [asyncio.create_task(breaker.may_probe()) for _ in range(3)]
        await asyncio.sleep(0.05)
        assert not any(task.done() for task in waiting)
        breaker.succeeded()
    assert await asyncio.gather(*waiting) == [True] * 3
    assert not breaker.is_open


async def test_after_a_probe_that_failed_another_one_follows(breaker: CircuitBreaker) -> None:
    _fail(breaker, _grants())
    first, second = _grants(2)
    assert await breaker.may_probe()
    with breaker.probing(first):
        waiting = asyncio.create_task(breaker.may_probe())
        await asyncio.sleep(0)
        breaker.failed(first)
    assert await waiting
    with breaker.probing(second):
        breaker.succeeded()
    assert not breaker.is_open


async def test_once_three_probes_have_failed_nobody_waits_for_the_next(
    breaker: CircuitBreaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fail(breaker, _grants())
    for grant in _grants(3):
        assert await breaker.may_probe()
        with breaker.probing(grant):
            breaker.failed(grant)
    assert await breaker.may_probe()
    with breaker.probing(uuid4()):
        assert not await breaker.may_probe()


async def test_a_probe_that_hangs_is_not_waited_for_for_long(
    breaker: CircuitBreaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breaker_module, "_PROBE_SECONDS", 0.01)
    _fail(breaker, _grants())
    with ExitStack() as hanging:
        for grant in _grants(10):
            # However many hang, now and then one more may find out.
            await eventually(breaker.may_probe)
            hanging.enter_context(breaker.probing(grant))
        monkeypatch.setattr(breaker_module, "_PROBE_SECONDS", 60.0)
        await eventually(breaker.may_probe)
        assert breaker.refuses_probes
        assert not await breaker.may_probe()


async def test_of_those_who_come_at_once_one_probes(breaker: CircuitBreaker) -> None:
    _fail(breaker, _grants())
    probing = [asyncio.create_task(breaker.may_probe()) for _ in range(10)]
    await asyncio.sleep(0.05)
    assert [task.done() for task in probing].count(True) == 1
    breaker.succeeded()
    assert await asyncio.gather(*probing) == [True] * 10
