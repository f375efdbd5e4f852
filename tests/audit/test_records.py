"""The encoding of audit records, on a real table."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker.audit.records import outcome_fields, subject_fields
from broker.audit.trail import AuditTrail
from broker.database.database import Database
from tests.support.audit import EMPTY_TRAIL
from tests.support.clock import ManualClock

ODD = 'back\\slash, \\N, "quotes", {braces}, comma, tab\tand\nnewline\r, naïve 🙂'


COLUMNS = "action, outcome, caller, user_id, account_sub, scopes, request_id"


async def test_a_record_comes_back_as_it_was_given(
    database: Database, trail: AuditTrail, clock: ManualClock
) -> None:
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


async def test_missing_values_are_stored_as_null(database: Database, trail: AuditTrail) -> None:
    trail.record(action="request_refused", outcome="unauthenticated")
    await trail.flush()
    row = await database.fetchrow(
        "SELECT caller, user_id, account_sub, scopes, request_id FROM audit_events"
    )
    assert row is not None
    assert set(row.values()) == {None}


@pytest.mark.parametrize("text", [ODD, r"\N", "NULL", "", "{}", "\\", '"'])
async def test_texts_that_look_like_copy_syntax_are_stored_unchanged(
    database: Database, trail: AuditTrail, text: str
) -> None:
    trail.record(action="a", outcome="b", user_id=text, scopes=(text, "other"))
    await trail.flush()
    row = await database.fetchrow("SELECT user_id, scopes FROM audit_events")
    assert row is not None
    assert (row["user_id"], row["scopes"]) == (text, [text, "other"])


@pytest.mark.parametrize(("text", "shown"), [("a\0b", r"a\0b"), ("a\ud800b", "a?b")])
async def test_a_text_that_postgresql_cannot_hold_is_escaped_and_the_batch_is_written(
    database: Database, trail: AuditTrail, text: str, shown: str
) -> None:
    trail.record(action="a", outcome="b", user_id=text)
    trail.record(action="a", outcome="b", user_id="after")
    await trail.flush()
    rows = await database.fetch("SELECT user_id FROM audit_events ORDER BY id")
    assert [row["user_id"] for row in rows] == [shown, "after"]


@pytest.mark.parametrize(("scope", "shown"), [("a\0b", r"a\0b"), ("a\ud800b", "a?b")])
async def test_a_scope_that_postgresql_cannot_hold_is_escaped(
    database: Database, trail: AuditTrail, scope: str, shown: str
) -> None:
    trail.record(action="a", outcome="b", scopes=(scope,))
    await trail.flush()
    assert await database.fetchval("SELECT scopes FROM audit_events") == [shown]


async def test_times_keep_their_microseconds(database: Database, trail: AuditTrail) -> None:
    moments = [
        datetime(2026, 1, 1, 12, 0, 59, 999_999, UTC),
        datetime(2026, 1, 1, 12, 1, 0, 1, UTC),
        datetime(2026, 1, 1, 12, 1, 0, 500_000, UTC),
    ]
    outcome, subject = outcome_fields("a", "b"), subject_fields(None, None, ())
    for moment in moments:
        # Half a microsecond more, because a float may be slightly too small.
        trail.add(moment.timestamp() + 5e-7, outcome, b"id", subject)
    await trail.flush()
    rows = await database.fetch("SELECT at FROM audit_events ORDER BY id")
    assert [row["at"] for row in rows] == moments


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
async def test_any_record_is_stored_unchanged(
    database: Database, trail: AuditTrail, clock: ManualClock, records: list[dict[str, Any]]
) -> None:
    await database.execute(EMPTY_TRAIL)
    for record in records:
        trail.record(**{**record, "scopes": record["scopes"] or ()})
    await trail.flush()
    assert [
        dict(row)
        for row in await database.fetch(f"SELECT at, {COLUMNS} FROM audit_events ORDER BY id")
    ] == [{"at": clock.now(), **record} for record in records]
