"""Limits of callers, and of addresses that fail to authenticate, with a clock of the test's own."""

import asyncio
import logging

import pytest

from broker.callers import authentication_limits, limits
from broker.callers.authentication_limits import AuthenticationLimits
from broker.callers.limits import CallerLimits
from broker.callers.model import Caller, RateLimit
from broker.callers.refusals import AccessRefused, RefusalReason
from broker.telemetry.metrics import Metrics
from broker.web.addresses import RemoteAddresses
from tests.support.clock import ManualClock

SCOPE = {"type": "http", "client": ("192.0.2.1", 5000), "headers": []}


class _Seconds:
    """A monotonic clock."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def _without_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (limits, authentication_limits):
        monkeypatch.setattr(module, "REFUSAL_DELAY_SECONDS", 0)
    monkeypatch.setattr(authentication_limits, "SLOW_VERIFICATION_SECONDS", 0)


@pytest.fixture
def seconds() -> _Seconds:
    return _Seconds()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def caller_limits(metrics: Metrics, seconds: _Seconds) -> CallerLimits:
    return CallerLimits(metrics, seconds)


def _caller(name: str = "a", rate: RateLimit | None = None) -> Caller:
    return Caller(name, frozenset(), frozenset(), (), (), rate_limit=rate)


def _refused(metrics: Metrics, caller: str, limit: str) -> float:
    labels = {"caller": caller, "limit": limit}
    return metrics.registry.get_sample_value("broker_rate_limited_total", labels) or 0


async def test_requests_over_the_rate_are_refused_until_it_allows_the_next(
    caller_limits: CallerLimits, metrics: Metrics, seconds: _Seconds
) -> None:
    caller = _caller(rate=RateLimit(requests_per_second=2, burst=3))
    for _ in range(3):
        await caller_limits.admit(caller)
    with pytest.raises(AccessRefused) as caught:
        await caller_limits.admit(caller)
    assert caught.value.reason is RefusalReason.RATE_LIMIT
    assert caught.value.retry_after_seconds == pytest.approx(0.5)
    assert _refused(metrics, "a", "rate") == 1
    seconds.now += 0.5
    await caller_limits.admit(caller)


async def test_a_batch_is_charged_and_owed(caller_limits: CallerLimits, seconds: _Seconds) -> None:
    caller = _caller(rate=RateLimit(requests_per_second=1, burst=2))
    await caller_limits.charge(caller, 10)
    with pytest.raises(AccessRefused):
        await caller_limits.charge(caller, 1)
    seconds.now += 10
    await caller_limits.charge(caller, 1)


async def test_a_caller_without_a_rate_limit_is_never_refused_for_its_rate(
    caller_limits: CallerLimits,
) -> None:
    caller = _caller()
    for _ in range(1000):
        await caller_limits.admit(caller)
    await caller_limits.charge(caller, 1_000_000)


async def test_one_caller_over_its_concurrency_limit_does_not_delay_another(
    caller_limits: CallerLimits, monkeypatch: pytest.MonkeyPatch, metrics: Metrics
) -> None:
    monkeypatch.setattr(limits, "READ_TIMEOUT_SECONDS", 0.01)
    bounded = CallerLimits(metrics)
    releases = [await bounded.acquire_batch(_caller()) for _ in range(limits.CONCURRENT_BATCHES)]
    with pytest.raises(AccessRefused) as caught:
        await bounded.acquire_batch(_caller())
    assert caught.value.reason is RefusalReason.CONCURRENCY_LIMIT
    assert _refused(metrics, "a", "overload") == 1
    (await bounded.acquire_batch(_caller("b")))()
    releases[0]()
    (await bounded.acquire_batch(_caller()))()


async def test_requests_about_one_user_leave_room_for_the_callers_other_users(
    monkeypatch: pytest.MonkeyPatch, metrics: Metrics
) -> None:
    monkeypatch.setattr(limits, "READ_TIMEOUT_SECONDS", 0.01)
    bounded = CallerLimits(metrics)
    for _ in range(limits.CONCURRENT_DATABASE_REQUESTS_PER_USER):
        await bounded.acquire_for_request(_caller(), "ada")
    with pytest.raises(AccessRefused):
        await bounded.acquire_for_request(_caller(), "ada")
    (await bounded.acquire_for_request(_caller(), "grace"))()


async def test_a_refused_caller_is_logged_once_a_minute(
    caller_limits: CallerLimits, seconds: _Seconds, caplog: pytest.LogCaptureFixture
) -> None:
    for pause in (0, 59, 1):
        seconds.now += pause
        caller_limits.overloaded(_caller())
    caller_limits.overloaded(_caller("b"))
    logged = [(vars(record)["event"], vars(record)["caller"]) for record in caplog.records]
    assert logged == [("caller_limit_exceeded", name) for name in ("a", "a", "b")]
    assert {record.levelno for record in caplog.records} == {logging.WARNING}


@pytest.fixture
def addresses(
    metrics: Metrics, seconds: _Seconds, monkeypatch: pytest.MonkeyPatch
) -> AuthenticationLimits:
    monkeypatch.setattr(authentication_limits, "FAILURES_PER_SECOND", 1)
    monkeypatch.setattr(authentication_limits, "FAILURE_BURST", 2)
    monkeypatch.setattr(authentication_limits, "CONCURRENT_FORMS", 1)
    monkeypatch.setattr(authentication_limits, "_TIMEOUT_SECONDS", 0.01)
    return AuthenticationLimits(RemoteAddresses((), ManualClock()), metrics, seconds)


async def test_failures_of_one_address_are_limited(
    addresses: AuthenticationLimits, metrics: Metrics, seconds: _Seconds
) -> None:
    assert [await addresses.count_failure(SCOPE) for _ in range(2)] == [None, None]
    refused = await addresses.count_failure(SCOPE)
    assert refused is not None
    assert refused.reason is RefusalReason.FAILED_AUTHENTICATIONS
    assert refused.retry_after_seconds == pytest.approx(1)
    assert _refused(metrics, "-", "failures") == 1
    assert await addresses.count_failure({**SCOPE, "client": ("192.0.2.2", 1)}) is None
    seconds.now += 1
    assert await addresses.count_failure(SCOPE) is None


async def test_over_the_limit_one_jwt_is_verified_at_a_time(
    addresses: AuthenticationLimits,
) -> None:
    async with addresses.verifying_jwt(SCOPE), addresses.verifying_jwt(SCOPE):
        pass
    for _ in range(2):
        await addresses.count_failure(SCOPE)
    async with addresses.verifying_jwt(SCOPE):
        with pytest.raises(AccessRefused) as caught:
            async with addresses.verifying_jwt(SCOPE):
                pass
    assert caught.value.reason is RefusalReason.FAILED_AUTHENTICATIONS
    async with addresses.verifying_jwt(SCOPE):
        pass


@pytest.mark.parametrize(("caller", "label"), [(None, "-"), ("a", "a")])
async def test_forms_are_limited_by_caller_or_else_by_address(
    addresses: AuthenticationLimits, metrics: Metrics, caller: str | None, label: str
) -> None:
    async with addresses.reading_form(SCOPE, caller):
        with pytest.raises(AccessRefused) as caught:
            async with addresses.reading_form(SCOPE, caller):
                pass
        async with addresses.reading_form(SCOPE, "another"):
            await asyncio.sleep(0)
    assert caught.value.reason is RefusalReason.FORM_LIMIT
    assert _refused(metrics, label, "overload") == 1
