"""Pings of the parts, and the replica's status that follows."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from broker.callers.callers_file import CallersFileError
from broker.database.database import StorageUnavailable
from broker.google.errors import GoogleUnavailable
from broker.ops import health as health_module
from broker.ops.health import Health, HealthCheck, Part
from broker.secret_sources.source import SourceMisconfigured, SourceUnavailable

Ping = Callable[[], Awaitable[None]]


async def _up() -> None:
    pass


async def _hanging() -> None:
    await asyncio.Event().wait()


def _failing(error: Exception) -> Ping:
    async def ping() -> None:
        raise error

    return ping


def _check(*, holds_tokens: bool = False, **pings: Ping) -> HealthCheck:
    parts = {"database": _up, "secret_source": _up, **pings}
    return HealthCheck(
        [Part(name, ping) for name, ping in parts.items()], holds_tokens=lambda: holds_tokens
    )


async def _health(*, holds_tokens: bool = False, **pings: Ping) -> Health:
    """The result of one check."""
    check = _check(holds_tokens=holds_tokens, **pings)
    try:
        return await check.check()
    finally:
        await check.aclose()


async def test_with_all_parts_up_the_replica_is_ready() -> None:
    health = await _health()
    assert (health.status, health.can_serve) == ("ready", True)
    assert {part["status"] for part in health.parts.values()} == {"up"}


async def test_a_part_that_is_up_shows_the_duration_of_its_ping() -> None:
    part = (await _health()).parts["database"]
    assert 0 <= part["milliseconds"] < 1000


@pytest.mark.parametrize(
    "error",
    [
        SourceUnavailable("sealed"),
        SourceMisconfigured("no such path"),
        GoogleUnavailable("timeout"),
        CallersFileError(["line 3: not YAML"]),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_a_part_that_is_down_degrades_the_replica_and_shows_its_reason(
    error: Exception,
) -> None:
    health = await _health(other=_failing(error))
    assert (health.status, health.can_serve) == ("degraded", True)
    assert health.parts["other"] == {"status": "down", "reason": str(error)}
    assert health.parts["database"]["status"] == "up"


async def test_without_database_and_cached_tokens_the_replica_is_unavailable() -> None:
    health = await _health(database=_failing(StorageUnavailable("connection refused")))
    assert (health.status, health.can_serve) == ("unavailable", False)


async def test_without_database_cached_tokens_can_be_served() -> None:
    health = await _health(
        holds_tokens=True, database=_failing(StorageUnavailable("connection refused"))
    )
    assert (health.status, health.can_serve) == ("degraded", True)


async def test_a_draining_replica_is_unavailable_with_all_parts_up() -> None:
    check = _check(holds_tokens=True)
    check.drain()
    health = await check.check()
    assert (health.status, health.can_serve) == ("unavailable", False)
    assert {part["status"] for part in health.parts.values()} == {"up"}


async def test_a_part_that_hangs_is_down_before_a_probe_times_out() -> None:
    pings, pings_in_flight = 0, list[int]()

    async def hang() -> None:
        nonlocal pings
        pings += 1
        await asyncio.sleep(0)
        # Pings one after another would take twice the time.
        pings_in_flight.append(pings)
        await _hanging()

    assert health_module._PING_SECONDS < 1
    async with asyncio.timeout(10):
        health = await _health(other=hang, another=hang)
    assert pings_in_flight == [2, 2]
    assert health.status == "degraded"
    assert health.parts["other"] == {"status": "down", "reason": "no answer in time"}


async def test_checks_share_one_ping_while_a_part_hangs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(health_module, "_PING_SECONDS", 0.01)
    pings, answer = 0, asyncio.Event()

    async def slow() -> None:
        nonlocal pings
        pings += 1
        await answer.wait()

    check = _check(other=slow)
    for _ in range(3):
        assert (await check.check()).status == "degraded"
    assert pings == 1
    answer.set()
    assert (await check.check()).status == "ready"
    assert (await check.check()).status == "ready"
    assert pings == 2


async def test_closing_a_check_cancels_its_pings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_module, "_PING_SECONDS", 0.01)
    events: list[str] = []

    async def stuck() -> None:
        events.append("began")
        try:
            await asyncio.Event().wait()
        finally:
            events.append("ended")

    check = _check(stuck=stuck)
    await check.check()
    assert events == ["began"]
    await check.aclose()
    assert events == ["began", "ended"]


async def test_a_database_that_hangs_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_module, "_PING_SECONDS", 0.01)
    assert not (await _health(database=_hanging)).can_serve


async def test_a_defect_in_a_ping_is_logged_and_shown_without_its_message(
    caplog: pytest.LogCaptureFixture,
) -> None:
    health = await _health(other=_failing(RuntimeError("hunter2")))
    assert health.status == "degraded"
    assert health.parts["other"]["status"] == "down"
    assert "hunter2" not in str(health.parts)
    assert [(vars(r)["event"], vars(r)["part"]) for r in caplog.records] == [
        ("health_check_failed", "other")
    ]


async def test_a_cancelled_check_reports_nothing() -> None:
    check = _check(other=_hanging)
    checking = asyncio.create_task(check.check())
    await asyncio.sleep(0)
    checking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await checking
    await check.aclose()
