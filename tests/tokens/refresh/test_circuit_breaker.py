"""The circuit breaker counts grants, not failures, and lets grants that have not failed probe."""

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
A, B, C, D, E = (uuid4() for _ in range(MANY))
SUCCESS = None
"""In a history of calls to Google: an answer, whatever it is."""


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Probes may follow each other immediately, and are waited for until they end."""
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


def _replay(breaker: CircuitBreaker, history: Sequence[UUID | None]) -> None:
    for grant in history:
        if grant is SUCCESS:
            breaker.succeeded()
        else:
            breaker.failed(grant)


@pytest.mark.parametrize(
    ("history", "is_open"),
    [
        ([], False),
        ([A], False),
        ([A] * 100, False),
        ([A, B, C, D], False),
        ([A, B, C, D, E], True),
        ([A, B, C, D, A, B, C, D], False),
        ([A, B, C, D, SUCCESS, E], False),
        ([A, B, C, D, SUCCESS, B, C, D, E], False),
        ([A, B, C, D, E, SUCCESS], False),
        ([SUCCESS, A, B, C, D, E], True),
    ],
    ids=[
        "no call",
        "one failure",
        "one grant that always fails",
        "four grants",
        "five grants",
        "four grants that fail twice",
        "a success between",
        "five grants, but not since the success",
        "a success ends it",
        "a success before",
    ],
)
async def test_it_opens_when_five_grants_fail_without_a_success(
    breaker: CircuitBreaker, history: list[UUID | None], is_open: bool
) -> None:
    _replay(breaker, history)

    assert breaker.is_open is is_open
    assert (0 < breaker.seconds_left() <= 2.4) is is_open
    assert not breaker.refuses_probes


@pytest.mark.parametrize(
    ("seconds", "is_waiting"), [(0, True), (1.5, True), (2.5, False), (-3600, False)]
)
async def test_a_failing_grant_waits_until_the_time_is_over_and_then_one_calls(
    breaker: CircuitBreaker, clock: ManualClock, seconds: float, is_waiting: bool
) -> None:
    """A clock that is set back prolongs no wait."""
    _fail(breaker, _grants())
    clock.advance(timedelta(seconds=seconds))

    assert (breaker.seconds_left() > 0) is is_waiting
    assert breaker.seconds_left() > 0


async def test_closed_it_lets_every_grant_call(breaker: CircuitBreaker) -> None:
    assert breaker.seconds_left() == 0
    assert await breaker.may_probe()
    with breaker.probing(A):
        assert await breaker.may_probe()


async def test_a_grant_that_has_not_failed_probes_and_the_others_wait_for_it(
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


async def test_after_a_failed_probe_another_one_follows(breaker: CircuitBreaker) -> None:
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


async def test_after_three_failed_probes_no_request_waits_for_the_next(
    breaker: CircuitBreaker,
) -> None:
    _fail(breaker, _grants())
    for grant in _grants(3):
        assert await breaker.may_probe()
        with breaker.probing(grant):
            breaker.failed(grant)
    assert await breaker.may_probe()
    with breaker.probing(uuid4()):
        assert breaker.refuses_probes
        assert not await breaker.may_probe()


async def test_an_unanswered_probe_is_not_waited_for_for_long(
    breaker: CircuitBreaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breaker_module, "_PROBE_SECONDS", 0.01)
    _fail(breaker, _grants())
    with ExitStack() as hanging:
        for grant in _grants(10):
            # However many are unanswered, another one may probe from time to time.
            await eventually(breaker.may_probe)
            hanging.enter_context(breaker.probing(grant))
        monkeypatch.setattr(breaker_module, "_PROBE_SECONDS", 60.0)
        await eventually(breaker.may_probe)
        assert breaker.refuses_probes
        assert not await breaker.may_probe()


async def test_of_simultaneous_requests_one_probes(breaker: CircuitBreaker) -> None:
    _fail(breaker, _grants())
    probing = [asyncio.create_task(breaker.may_probe()) for _ in range(10)]
    await asyncio.sleep(0.05)
    assert [task.done() for task in probing].count(True) == 1
    breaker.succeeded()
    assert await asyncio.gather(*probing) == [True] * 10
