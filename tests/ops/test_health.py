"""How the parts are asked, and what follows for the replica."""

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


async def _well() -> None:
    pass


async def _hanging() -> None:
    await asyncio.Event().wait()


def _failing(error: Exception) -> Ping:
    async def ping() -> None:
        raise error

    return ping


def _check(*, holds_tokens: bool = False, **pings: Ping) -> HealthCheck:
    parts = {"database": _well, "secret_source": _well, **pings}
    return HealthCheck(
        [Part(name, ping) for name, ping in parts.items()], holds_tokens=lambda: holds_tokens
    )


async def _health(*, holds_tokens: bool = False, **pings: Ping) -> Health:
    """What is found, once; nobody goes on to ask."""
    check = _check(holds_tokens=holds_tokens, **pings)
    try:
        return await check.check()
    finally:
        await check.aclose()


async def test_all_well_is_ready() -> None:
    health = await _health()
    assert (health.status, health.can_serve) == ("ready", True)
    assert {part["status"] for part in health.parts.values()} == {"up"}


async def test_a_part_that_is_up_tells_how_long_it_took() -> None:
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
async def test_a_part_that_is_down_degrades_and_says_why(error: Exception) -> None:
    health = await _health(other=_failing(error))
    assert (health.status, health.can_serve) == ("degraded", True)
    assert health.parts["other"] == {"status": "down", "reason": str(error)}
    assert health.parts["database"]["status"] == "up"


async def test_without_database_and_tokens_nothing_can_be_served() -> None:
    health = await _health(database=_failing(StorageUnavailable("away")))
    assert (health.status, health.can_serve) == ("unavailable", False)


async def test_without_database_what_is_held_can_be_served() -> None:
    health = await _health(holds_tokens=True, database=_failing(StorageUnavailable("away")))
    assert (health.status, health.can_serve) == ("degraded", True)


async def test_a_draining_replica_is_unavailable_though_all_is_well() -> None:
    check = _check(holds_tokens=True)
    check.is_draining = True
    health = await check.check()
    assert (health.status, health.can_serve) == ("unavailable", False)
    assert {part["status"] for part in health.parts.values()} == {"up"}


async def test_a_part_that_hangs_is_down_before_a_prober_gives_up() -> None:
    asked, asked_at_once = 0, list[int]()

    async def hang() -> None:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0)
        # One after the other would take the patience twice.
        asked_at_once.append(asked)
        await _hanging()

    assert health_module._PATIENCE_SECONDS < 1
    async with asyncio.timeout(10):
        health = await _health(other=hang, another=hang)
    assert asked_at_once == [2, 2]
    assert health.status == "degraded"
    assert health.parts["other"] == {"status": "down", "reason": "no answer in time"}


async def test_all_who_ask_while_a_part_hangs_share_one_ping(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(health_module, "_PATIENCE_SECONDS", 0.01)
    asked, answer = 0, asyncio.Event()

    async def slow() -> None:
        nonlocal asked
        asked += 1
        await answer.wait()

    check = _check(other=slow)
    for _ in range(3):
        assert (await check.check()).status == "degraded"
    assert asked == 1
    answer.set()
    assert (await check.check()).status == "ready"
    assert (await check.check()).status == "ready"
    assert asked == 2


async def test_a_check_that_is_closed_gives_up_what_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_module, "_PATIENCE_SECONDS", 0.01)
    check = _check(stuck=_hanging)
    await check.check()
    assert "ping stuck" in {task.get_name() for task in asyncio.all_tasks()}
    await check.aclose()
    assert "ping stuck" not in {task.get_name() for task in asyncio.all_tasks()}


async def test_a_database_that_hangs_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_module, "_PATIENCE_SECONDS", 0.01)
    assert not (await _health(database=_hanging)).can_serve


async def test_a_defect_in_asking_is_logged_and_told_without_its_words(
    caplog: pytest.LogCaptureFixture,
) -> None:
    health = await _health(other=_failing(RuntimeError("hunter2")))
    assert health.status == "degraded"
    assert health.parts["other"]["status"] == "down"
    assert "hunter2" not in str(health.parts)
    assert [vars(record)["part"] for record in caplog.records] == ["other"]


async def test_who_stops_asking_is_not_told_that_a_part_is_down() -> None:
    check = _check(other=_hanging)
    asking = asyncio.create_task(check.check())
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await check.aclose()
