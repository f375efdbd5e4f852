"""The audit trail's buffer: when records are written, and that no record is lost or halved."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from broker.audit.records import outcome_fields, subject_fields
from broker.audit.trail import FLUSH_THRESHOLD, AuditTrail
from broker.audit.unauthenticated_cap import RECORDS_PER_MINUTE
from broker.database.database import Database, StorageUnavailable
from broker.secret import Secret
from broker.telemetry.metrics import Metrics
from tests.support.audit import KEYS
from tests.support.clock import ManualClock

COLUMNS = "action, outcome, caller, user_id, account_sub, scopes, request_id"


OUTCOME, SUBJECT = outcome_fields("a", "b"), subject_fields(None, None, ())


@pytest.fixture
def trail(database: Database, clock: ManualClock, metrics: Metrics) -> AuditTrail:
    return AuditTrail(database, clock, metrics, KEYS, capacity=1000)


@pytest.fixture
async def closed_database(database_url: str) -> AsyncIterator[Database]:
    """A database that is unavailable until the test opens it."""
    database = Database(Secret(database_url))
    yield database
    await database.close()


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


async def _until_a_session_waits_for_a_lock(database: Database) -> None:
    waiting = (
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    async with asyncio.timeout(5):
        while not await database.fetchval(waiting):  # noqa: ASYNC110  (it sends no event)
            await asyncio.sleep(0.01)


def _add(trail: AuditTrail, count: int) -> None:
    for _ in range(count):
        trail.add(1.0, OUTCOME, b"id", SUBJECT)


async def test_nothing_is_written_before_the_flush(database: Database, trail: AuditTrail) -> None:
    _record(trail, "one")
    assert await _actions(database) == []


async def test_a_record_has_the_time_of_its_event(
    database: Database, trail: AuditTrail, clock: ManualClock
) -> None:
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


async def test_a_flush_without_records_needs_no_database(
    closed_database: Database, clock: ManualClock, metrics: Metrics
) -> None:
    await AuditTrail(closed_database, clock, metrics, KEYS).flush()


async def test_a_failed_flush_keeps_the_records_in_order(
    closed_database: Database, clock: ManualClock, metrics: Metrics
) -> None:
    trail = AuditTrail(closed_database, clock, metrics, KEYS, capacity=1000)
    _record(trail, "one", "two")
    for _ in range(3):
        with pytest.raises(StorageUnavailable):
            await trail.flush()
    _record(trail, "three")
    await closed_database.open()
    await trail.flush()
    assert await _actions(closed_database) == ["one", "two", "three"]
    assert _dropped(metrics) == 0


async def test_a_cancelled_flush_loses_nothing(database: Database, trail: AuditTrail) -> None:
    _record(trail, *(f"action-{number}" for number in range(900)))
    async with database.transaction() as connection:
        await connection.execute("LOCK TABLE audit_events IN ACCESS EXCLUSIVE MODE")
        flushing = asyncio.create_task(trail.flush())
        await _until_a_session_waits_for_a_lock(database)
        flushing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await flushing
    await trail.flush()
    assert len(await _actions(database)) == 900


async def test_a_flush_frees_the_buffer(
    database: Database, trail: AuditTrail, metrics: Metrics
) -> None:
    for _ in range(3):
        _record(trail, *(["one"] * 1000))
        await trail.flush()
    assert _dropped(metrics) == 0
    assert len(await _actions(database)) == 3000


async def test_unauthenticated_records_cannot_crowd_out_those_of_callers(
    database: Database, trail: AuditTrail, metrics: Metrics
) -> None:
    for _ in range(2000):
        trail.record(action="request_refused", outcome="unauthenticated", unauthenticated=True)
    _record(trail, *(["one"] * 900))
    assert _left_out(metrics) == 2000 - RECORDS_PER_MINUTE
    assert _dropped(metrics) == 0
    await trail.flush()
    assert (await _actions(database)).count("one") == 900


async def test_records_added_during_a_flush_are_written_by_the_next(
    database: Database, trail: AuditTrail
) -> None:
    _record(trail, "one")
    async with database.transaction() as connection:
        await connection.execute("LOCK TABLE audit_events IN ACCESS EXCLUSIVE MODE")
        flushing = asyncio.create_task(trail.flush())
        await _until_a_session_waits_for_a_lock(database)
        _record(trail, "two")
    await flushing
    assert await _actions(database) == ["one"]
    await trail.flush()
    assert await _actions(database) == ["one", "two"]


async def test_a_batch_is_written_completely_or_not_at_all(
    database: Database, trail: AuditTrail
) -> None:
    await database.execute("ALTER TABLE audit_events ADD CHECK (action <> 'bad')")
    _record(trail, "good", "bad")
    with pytest.raises(Exception, match="violates check constraint"):
        await trail.flush()
    assert await _actions(database) == []


async def test_a_large_batch_is_written_completely_and_in_order(
    database: Database, clock: ManualClock
) -> None:
    trail = AuditTrail(database, clock, Metrics(), KEYS)
    for number in range(1234):
        trail.record(action="a", outcome="b", request_id=str(number))
    await trail.flush()
    rows = await database.fetch("SELECT request_id FROM audit_events ORDER BY id")
    assert [row["request_id"] for row in rows] == [str(number) for number in range(1234)]


async def test_records_keep_their_order_while_postgresql_is_down(
    database: Database, database_url: str, clock: ManualClock
) -> None:
    closed = Database(Secret(database_url))
    trail = AuditTrail(closed, clock, Metrics(), KEYS)
    trail.record(action="first", outcome="b")
    with pytest.raises(StorageUnavailable):
        await trail.flush()
    trail.record(action="second", outcome="b")
    await closed.open()
    try:
        await trail.flush()
    finally:
        await closed.close()
    rows = await database.fetch("SELECT action FROM audit_events ORDER BY id")
    assert [row["action"] for row in rows] == ["first", "second"]


async def test_records_over_the_capacity_are_dropped_and_counted(
    database: Database, clock: ManualClock
) -> None:
    metrics = Metrics()
    trail = AuditTrail(database, clock, metrics, KEYS, capacity=2)
    for _ in range(5):
        trail.record(action="a", outcome="b")
    await trail.flush()
    assert await database.fetchval("SELECT count(*) FROM audit_events") == 2
    assert metrics.registry.get_sample_value("broker_audit_records_dropped_total") == 3


@pytest.mark.parametrize("is_last", [False, True])
async def test_dropped_records_are_summarised_by_outcome_and_caller(
    database: Database, clock: ManualClock, *, is_last: bool
) -> None:
    trail = AuditTrail(database, clock, Metrics(), KEYS, capacity=2)
    for _ in range(2):
        trail.record(action="kept", outcome="ok")
    for number in range(5):
        trail.record(action="a", outcome="b\\\tc", caller="one", user_id=str(number))
    trail.record(action="a", outcome="d")
    await trail.flush(is_last=is_last)
    if not is_last:
        await trail.flush()
    rows = await database.fetch(
        "SELECT action, outcome, caller, user_id FROM audit_events WHERE action = 'a' ORDER BY id"
    )
    assert sorted(tuple(row) for row in rows) == [
        ("a", "not_recorded:1:d", None, None),
        ("a", "not_recorded:5:b\\\tc", "one", None),
    ]


async def test_has_room_reserves_a_tenth_of_the_capacity(
    database: Database, clock: ManualClock
) -> None:
    trail = AuditTrail(database, clock, Metrics(), KEYS, capacity=100)
    for _ in range(60):
        trail.record(action="a", outcome="b")
    assert trail.has_room(30)
    assert not trail.has_room(31)
    await trail.flush()
    assert trail.has_room(90)


async def test_reaching_the_threshold_triggers_a_flush(
    database: Database, clock: ManualClock
) -> None:
    trail = AuditTrail(database, clock, Metrics(), KEYS)
    _add(trail, FLUSH_THRESHOLD - 1)
    assert not trail.due.is_set()
    _add(trail, 1)
    assert trail.due.is_set()


async def test_the_gauge_shows_unwritten_records(database: Database, clock: ManualClock) -> None:
    metrics = Metrics()
    trail = AuditTrail(database, clock, metrics, KEYS)
    _add(trail, 3)
    assert metrics.registry.get_sample_value("broker_audit_records_waiting") == 3
    await trail.flush()
    assert metrics.registry.get_sample_value("broker_audit_records_waiting") == 0


async def test_one_flush_writes_several_batches(database: Database, clock: ManualClock) -> None:
    trail = AuditTrail(database, clock, Metrics(), KEYS)
    _add(trail, 25_000)
    await trail.flush()
    statements = "SELECT count(*), count(DISTINCT xmin::text) AS statements FROM audit_events"
    row = await database.fetchrow(statements)
    assert row is not None
    assert dict(row) == {"count": 25_000, "statements": 3}
