"""The audit trail's batches: when they are written, and that none is lost, halved or changed."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker.audit.trail import AuditTrail
from broker.audit.unauthenticated_cap import RECORDED_A_MINUTE
from broker.database.database import Database, StorageUnavailable
from broker.secret import Secret
from broker.telemetry.metrics import Metrics
from tests.support.audit import EMPTY_TRAIL, KEYS
from tests.support.clock import ManualClock

COLUMNS = "action, outcome, caller, user_id, account_sub, scopes, request_id"


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """Not opened yet: away, until the test opens it."""
    database = Database(Secret(database_url))
    yield database
    await database.close()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def trail(database: Database, clock: ManualClock, metrics: Metrics) -> AuditTrail:
    return AuditTrail(database, clock, metrics, KEYS, held_at_most=1000)


async def _written(database: Database) -> list[Any]:
    return await database.fetch(f"SELECT at, {COLUMNS} FROM audit_events ORDER BY id")


async def _actions(database: Database) -> list[str]:
    return [row["action"] for row in await _written(database)]


def _dropped(metrics: Metrics) -> float:
    return metrics.registry.get_sample_value("broker_audit_records_dropped_total") or 0.0


def _left_out(metrics: Metrics) -> float:
    return metrics.registry.get_sample_value("broker_audit_records_left_out_total") or 0.0


def _record(trail: AuditTrail, *actions: str) -> None:
    for action in actions:
        trail.record(action=action, outcome="ok")


async def test_nothing_is_written_before_the_flush(database: Database, trail: AuditTrail) -> None:
    await database.open()
    _record(trail, "one")
    assert await _actions(database) == []


async def test_the_time_is_that_of_the_event(
    database: Database, trail: AuditTrail, clock: ManualClock
) -> None:
    await database.open()
    began = clock.now()
    _record(trail, "one")
    clock.advance(timedelta(minutes=5))
    _record(trail, "two")
    clock.advance(timedelta(minutes=5))
    await trail.flush()
    assert [row["at"] - began for row in await _written(database)] == [
        timedelta(0),
        timedelta(minutes=5),
    ]


async def test_a_flush_without_records_asks_nobody(trail: AuditTrail) -> None:
    await trail.flush()


async def test_a_failed_flush_keeps_the_records_in_order(
    database: Database, trail: AuditTrail, metrics: Metrics
) -> None:
    _record(trail, "one", "two")
    for _ in range(3):
        with pytest.raises(StorageUnavailable):
            await trail.flush()
    _record(trail, "three")
    await database.open()
    await trail.flush()
    assert await _actions(database) == ["one", "two", "three"]
    assert _dropped(metrics) == 0


async def test_a_cancelled_flush_loses_nothing(database: Database, trail: AuditTrail) -> None:
    await database.open()
    _record(trail, *(f"action-{number}" for number in range(900)))
    async with database.transaction() as connection:
        await connection.execute("LOCK TABLE audit_events IN ACCESS EXCLUSIVE MODE")
        flushing = asyncio.create_task(trail.flush())
        await _until_waiting_for_a_lock(database)
        flushing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await flushing
    await trail.flush()
    assert len(await _actions(database)) == 900


async def test_there_is_room_again_after_a_flush(
    database: Database, trail: AuditTrail, metrics: Metrics
) -> None:
    await database.open()
    for _ in range(3):
        _record(trail, *(["one"] * 1000))
        await trail.flush()
    assert _dropped(metrics) == 0
    assert len(await _actions(database)) == 3000


async def test_strangers_can_not_crowd_out_what_callers_did(
    database: Database, trail: AuditTrail, metrics: Metrics
) -> None:
    await database.open()
    for _ in range(2000):
        trail.record(action="request_refused", outcome="unauthenticated", from_stranger=True)
    _record(trail, *(["one"] * 900))
    assert _left_out(metrics) == 2000 - RECORDED_A_MINUTE
    assert _dropped(metrics) == 0
    await trail.flush()
    assert (await _actions(database)).count("one") == 900


async def test_records_that_come_in_during_a_flush_are_written_by_the_next(
    database: Database, trail: AuditTrail
) -> None:
    await database.open()
    _record(trail, "one")
    async with database.transaction() as connection:
        await connection.execute("LOCK TABLE audit_events IN ACCESS EXCLUSIVE MODE")
        flushing = asyncio.create_task(trail.flush())
        await _until_waiting_for_a_lock(database)
        _record(trail, "two")
    await flushing
    assert await _actions(database) == ["one"]
    await trail.flush()
    assert await _actions(database) == ["one", "two"]


async def test_a_batch_is_written_whole_or_not_at_all(
    database: Database, trail: AuditTrail
) -> None:
    await database.open()
    await database.execute("ALTER TABLE audit_events ADD CHECK (action <> 'bad')")
    _record(trail, "good", "bad")
    with pytest.raises(Exception, match="violates check constraint"):
        await trail.flush()
    assert await _actions(database) == []


async def _until_waiting_for_a_lock(database: Database) -> None:
    waiting = (
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    async with asyncio.timeout(5):
        while not await database.fetchval(waiting):  # noqa: ASYNC110  (it sends no event)
            await asyncio.sleep(0.01)


_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
_NASTY = _TEXT | st.sampled_from(["\\N", "\\.", "\t", "\n", "\r\n", "\\", '"', "{}", "NULL", ","])
_RECORDS = st.lists(
    st.fixed_dictionaries(
        {
            "action": _NASTY,
            "outcome": _NASTY,
            "caller": st.none() | _NASTY,
            "user_id": st.none() | _NASTY,
            "account_sub": st.none() | _NASTY,
            "scopes": st.none() | st.lists(_NASTY, min_size=1, max_size=3),
            "request_id": st.none() | _NASTY,
        }
    ),
    max_size=30,
)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_RECORDS)
async def test_whatever_is_recorded_is_what_is_written(
    database: Database, trail: AuditTrail, clock: ManualClock, records: list[dict[str, Any]]
) -> None:
    await database.open()
    await database.execute(EMPTY_TRAIL)
    for record in records:
        trail.record(**{**record, "scopes": record["scopes"] or ()})
    await trail.flush()
    assert [dict(row) for row in await _written(database)] == [
        {"at": clock.now(), **record} for record in records
    ]
