"""The audit trail against a real table: what goes in comes out, and nothing stops it."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from broker.audit.trail import AuditTrail, told_outcome, told_user
from broker.database.database import Database, StorageUnavailable
from broker.secret import Secret
from broker.telemetry.metrics import Metrics
from tests.support.audit import KEYS
from tests.support.clock import ManualClock

ODD = 'back\\slash, \\N, "quotes", {braces}, comma, tab\tand\nnewline\r, naïve 🙂'


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(Secret(database_url))
    await database.open()
    yield database
    await database.close()


async def test_a_record_comes_back_as_it_was_given(database: Database, clock: ManualClock) -> None:
    trail = AuditTrail(database, clock, Metrics(), KEYS)
    trail.record(
        action="token_handed_out",
        outcome="ok",
        caller="calendar-sync",
        user_id="user-1",
        account_sub="108",
        scopes=("openid", "email"),
        request_id="abc-1",
    )
    await trail.flush()
    row = await database.fetchrow("SELECT * FROM audit_events")
    assert row is not None
    assert dict(row) == {
        "id": row["id"],
        "at": clock.now(),
        "action": "token_handed_out",
        "outcome": "ok",
        "caller": "calendar-sync",
        "user_id": "user-1",
        "account_sub": "108",
        "scopes": ["openid", "email"],
        "request_id": "abc-1",
        "batch": row["batch"],
    }


async def test_what_is_left_out_is_null(database: Database, clock: ManualClock) -> None:
    trail = AuditTrail(database, clock, Metrics(), KEYS)
    trail.record(action="request_refused", outcome="unauthenticated")
    await trail.flush()
    row = await database.fetchrow(
        "SELECT caller, user_id, account_sub, scopes, request_id FROM audit_events"
    )
    assert row is not None
    assert set(row.values()) == {None}


@pytest.mark.parametrize("text", [ODD, r"\N", "NULL", "", "{}", "\\", '"'])
async def test_no_text_is_mistaken_for_the_formats_own_signs(
    database: Database, clock: ManualClock, text: str
) -> None:
    trail = AuditTrail(database, clock, Metrics(), KEYS)
    trail.record(action="a", outcome="b", user_id=text, scopes=(text, "other"))
    await trail.flush()
    row = await database.fetchrow("SELECT user_id, scopes FROM audit_events")
    assert row is not None
    assert (row["user_id"], row["scopes"]) == (text, [text, "other"])


@pytest.mark.parametrize(("text", "shown"), [("a\0b", r"a\0b"), ("a\ud800b", "a?b")])
async def test_what_no_text_column_can_hold_stops_no_batch(
    database: Database, clock: ManualClock, text: str, shown: str
) -> None:
    trail = AuditTrail(database, clock, Metrics(), KEYS)
    trail.record(action="a", outcome="b", user_id=text)
    trail.record(action="a", outcome="b", user_id="after")
    await trail.flush()
    rows = await database.fetch("SELECT user_id FROM audit_events ORDER BY id")
    assert [row["user_id"] for row in rows] == [shown, "after"]


@pytest.mark.parametrize(("scope", "shown"), [("a\0b", r"a\0b"), ("a\ud800b", "a?b")])
async def test_what_no_array_can_hold_is_shown(
    database: Database, clock: ManualClock, scope: str, shown: str
) -> None:
    trail = AuditTrail(database, clock, Metrics(), KEYS)
    trail.record(action="a", outcome="b", scopes=(scope,))
    await trail.flush()
    assert await database.fetchval("SELECT scopes FROM audit_events") == [shown]


async def test_times_are_kept_to_the_microsecond_across_seconds(
    database: Database, clock: ManualClock
) -> None:
    trail = AuditTrail(database, clock, Metrics(), KEYS)
    moments = [
        datetime(2026, 1, 1, 12, 0, 59, 999_999, UTC),
        datetime(2026, 1, 1, 12, 1, 0, 1, UTC),
        datetime(2026, 1, 1, 12, 1, 0, 500_000, UTC),
    ]
    outcome, told = told_outcome("a", "b"), told_user(None, None, ())
    for moment in moments:
        # Half a microsecond more, for a float may fall short of the whole one.
        trail.add(moment.timestamp() + 5e-7, outcome, b"id", told)
    await trail.flush()
    rows = await database.fetch("SELECT at FROM audit_events ORDER BY id")
    assert [row["at"] for row in rows] == moments


async def test_a_large_batch_is_written_whole_and_in_order(
    database: Database, clock: ManualClock
) -> None:
    trail = AuditTrail(database, clock, Metrics(), KEYS)
    for number in range(1234):
        trail.record(action="a", outcome="b", request_id=str(number))
    await trail.flush()
    rows = await database.fetch("SELECT request_id FROM audit_events ORDER BY id")
    assert [row["request_id"] for row in rows] == [str(number) for number in range(1234)]


async def test_records_wait_in_order_while_storage_is_away(
    database: Database, database_url: str, clock: ManualClock
) -> None:
    away = Database(Secret(database_url))
    trail = AuditTrail(away, clock, Metrics(), KEYS)
    trail.record(action="first", outcome="b")
    with pytest.raises(StorageUnavailable):
        await trail.flush()
    trail.record(action="second", outcome="b")
    await away.open()
    try:
        await trail.flush()
    finally:
        await away.close()
    rows = await database.fetch("SELECT action FROM audit_events ORDER BY id")
    assert [row["action"] for row in rows] == ["first", "second"]


async def test_what_goes_over_the_bound_is_dropped_and_counted(
    database: Database, clock: ManualClock
) -> None:
    metrics = Metrics()
    trail = AuditTrail(database, clock, metrics, KEYS, held_at_most=2)
    for _ in range(5):
        trail.record(action="a", outcome="b")
    await trail.flush()
    assert await database.fetchval("SELECT count(*) FROM audit_events") == 2
    assert metrics.registry.get_sample_value("broker_audit_records_dropped_total") == 3


@pytest.mark.parametrize("is_last", [False, True])
async def test_how_many_were_dropped_is_on_record_by_kind_and_caller(
    database: Database, clock: ManualClock, *, is_last: bool
) -> None:
    trail = AuditTrail(database, clock, Metrics(), KEYS, held_at_most=2)
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


async def test_whoever_asks_for_room_leaves_some_to_others(
    database: Database, clock: ManualClock
) -> None:
    trail = AuditTrail(database, clock, Metrics(), KEYS, held_at_most=100)
    for _ in range(60):
        trail.record(action="a", outcome="b")
    assert trail.has_room(30)
    assert not trail.has_room(31)
    await trail.flush()
    assert trail.has_room(90)
