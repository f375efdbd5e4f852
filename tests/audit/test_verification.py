"""Whatever is done to a trail that was written is found, and named for what it is."""

import re
from datetime import timedelta

import pytest

from broker.audit.batch_macs import Head
from broker.audit.keys import audit_keys
from broker.audit.trail import AuditTrail
from broker.audit.verification import Verification
from broker.database.database import Database
from broker.secret import Secret
from broker.telemetry.metrics import Metrics
from tests.audit.conftest import Look
from tests.support.audit import KEYS, SECRET_KEY, tamper
from tests.support.clock import ManualClock

NASTY = '\\N \\. \t \n \r\n \\ " {} NULL , \v \f \b \x7f \0 \ud800 🙂 \u202e'
OF_3 = "WHERE batch = (SELECT batch FROM audit_seals WHERE number = 3)"
LAST_OF_3 = f"WHERE id = (SELECT max(id) FROM audit_events {OF_3})"


@pytest.fixture(autouse=True)
async def written(trail: AuditTrail, clock: ManualClock) -> None:
    """Five batches of three records."""
    for batch in range(5):
        for number in range(3):
            clock.advance(timedelta(seconds=0.123457))
            trail.record(
                action="token_handed_out",
                outcome="ok",
                caller="calendar-sync",
                user_id=f"user-{number}",
                account_sub=NASTY,
                scopes=("openid", NASTY),
                request_id=f"{batch}-{number}",
            )
        await trail.flush()


async def _head(database: Database) -> Head:
    row = await database.fetchrow(
        "SELECT number, mac FROM audit_seals ORDER BY number DESC LIMIT 1"
    )
    assert row is not None
    return Head(row["number"], row["mac"])


async def test_a_trail_that_nobody_touched_is_whole(look: Look) -> None:
    assert await look() == []


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("at", "at + interval '1 microsecond'"),
        ("at", "'infinity'"),
        ("at", "'290000-01-01'"),
        ("at", "'-infinity'"),
        ("action", "'token_refused'"),
        ("outcome", "'okay'"),
        ("caller", "NULL"),
        ("user_id", "'somebody-else'"),
        ("user_id", "''"),
        ("account_sub", "account_sub || ' '"),
        ("scopes", "scopes || '{email}'"),
        ("scopes", "scopes || NULL::text"),
        ("scopes", "NULL"),
        ("scopes", "'{}'"),
        ("scopes", "'{{openid,email}}'"),
        ("request_id", "'another'"),
    ],
)
async def test_a_changed_record_is_found(
    look: Look, database_url: str, column: str, value: str
) -> None:
    await tamper(database_url, f"UPDATE audit_events SET {column} = {value} {LAST_OF_3}")
    (fault,) = await look()
    assert fault.startswith("changed: some of the 3 records of seal 3 (2026-")


async def test_records_that_changed_places_are_found(look: Look, database_url: str) -> None:
    await tamper(
        database_url,
        "ALTER TABLE audit_events ALTER id DROP IDENTITY",
        f"UPDATE audit_events SET id = -id {LAST_OF_3}",
    )
    (fault,) = await look()
    assert fault.startswith("changed: ")


async def test_a_removed_record_is_found(look: Look, database_url: str) -> None:
    await tamper(database_url, f"DELETE FROM audit_events {LAST_OF_3}")
    (fault,) = await look()
    assert fault.startswith("removed: 1 of the 3 records of seal 3")


async def test_a_batch_without_its_records_is_found(look: Look, database_url: str) -> None:
    await tamper(database_url, f"DELETE FROM audit_events {OF_3}")
    (fault,) = await look()
    assert fault.startswith("removed: 3 of the 3 records of seal 3")


async def test_a_record_that_moved_to_another_batch_is_found(look: Look, database_url: str) -> None:
    other = "(SELECT batch FROM audit_seals WHERE number = 4)"
    await tamper(database_url, f"UPDATE audit_events SET batch = {other} {LAST_OF_3}")
    removed, added = await look()
    assert removed.startswith("removed: 1 of the 3 records of seal 3")
    assert added.startswith("added: 1 more than the 3 records of seal 4")


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        ("(SELECT batch FROM audit_seals WHERE number = 3)", "1 more than the 3 records of seal 3"),
        ("77", "1 record from id 16 on claim batch 77, which no seal has"),
        ("NULL", "1 record without a seal, from id 16 on, are of a time when every broker sealed"),
    ],
)
async def test_an_added_record_is_found(
    look: Look, database_url: str, batch: str, words: str
) -> None:
    await tamper(
        database_url,
        "INSERT INTO audit_events (at, action, outcome, batch) "
        f"VALUES ('2026-06-01', 'consent', 'connected', {batch})",
    )
    (fault,) = await look()
    assert fault.startswith(f"added: {words}")


async def test_a_batch_removed_with_its_seal_leaves_a_gap(look: Look, database_url: str) -> None:
    await tamper(
        database_url,
        f"DELETE FROM audit_events {OF_3}",
        "DELETE FROM audit_seals WHERE number = 3",
    )
    assert await look() == ["gap: seal 3 is missing"]


async def test_a_beginning_that_was_removed_leaves_a_gap(look: Look, database_url: str) -> None:
    await tamper(
        database_url,
        "DELETE FROM audit_events WHERE batch IN (SELECT batch FROM audit_seals WHERE number < 4)",
        "DELETE FROM audit_seals WHERE number < 4",
    )
    assert await look() == ["gap: seals 1 to 3 are missing"]


async def test_a_gap_that_was_closed_by_renumbering_is_found(look: Look, database_url: str) -> None:
    await tamper(
        database_url,
        f"DELETE FROM audit_events {OF_3}",
        "DELETE FROM audit_seals WHERE number = 3",
        "UPDATE audit_seals SET number = 3 WHERE number = 4",
        "UPDATE audit_seals SET number = 4 WHERE number = 5",
    )
    assert await look() == [
        "forged seal: seal 3 was not made after the one before it",
        "forged seal: seal 3 was not made, or not so, by a broker",
        "forged seal: seal 4 was not made, or not so, by a broker",
    ]


@pytest.mark.parametrize(
    "change",
    [
        "records = 2",
        "digest = sha256('')",
        "first_at = first_at - interval '1 day'",
        "last_at = 'infinity'",
        "batch = 77",
        "mac = sha256('')",
        "previous_mac = sha256('')",
    ],
)
async def test_a_changed_seal_is_found(look: Look, database_url: str, change: str) -> None:
    await tamper(database_url, f"UPDATE audit_seals SET {change} WHERE number = 3")
    assert "forged seal: seal 3 was not made, or not so, by a broker" in await look()


async def test_a_seal_made_with_another_key_is_found(
    look: Look, database: Database, clock: ManualClock
) -> None:
    strange = AuditTrail(database, clock, Metrics(), audit_keys([Secret("another key" * 4)]))
    strange.record(action="token_handed_out", outcome="ok")
    await strange.flush()
    (fault,) = await look()
    assert fault.startswith("unknown key: seal 6 was made with audit:")


async def test_a_former_key_verifies_what_it_sealed(database: Database, clock: ManualClock) -> None:
    keys = audit_keys([Secret("the new key, which is long enough"), SECRET_KEY])
    trail = AuditTrail(database, clock, Metrics(), keys)
    trail.record(action="token_handed_out", outcome="ok")
    await trail.flush()
    verification = Verification(keys)
    async with database.connection() as connection:
        assert [fault async for fault in verification.faults(connection)] == []
    assert (verification.tally.seals, verification.tally.records) == (6, 16)


async def test_an_end_that_was_cut_off_is_found_by_its_head(
    look: Look, database: Database, database_url: str
) -> None:
    head = await _head(database)
    assert await look(heads=[head]) == []
    await tamper(
        database_url,
        "DELETE FROM audit_events WHERE batch IN (SELECT batch FROM audit_seals WHERE number = 5)",
        "DELETE FROM audit_seals WHERE number = 5",
    )
    assert await look() == []
    (fault,) = await look(heads=[head, Head(7, bytes(32))])
    assert re.fullmatch(
        r"rolled back: to seal 4 \(2026-[0-9T:-]+Z\): seal 7 was there once, and is gone", fault
    )


async def test_an_end_that_was_written_anew_is_found_by_its_head(
    look: Look, database: Database, database_url: str, trail: AuditTrail, metrics: Metrics
) -> None:
    """Also by the broker that wrote it, at its next batch."""
    head = await _head(database)
    await tamper(
        database_url,
        "DELETE FROM audit_events WHERE batch IN (SELECT batch FROM audit_seals WHERE number = 5)",
        "DELETE FROM audit_seals WHERE number = 5",
    )
    trail.record(action="token_handed_out", outcome="ok")
    await trail.flush()
    (fault,) = await look(heads=[head])
    assert fault == (
        "rolled back: to before seal 5, and written on since: seal 5 is another than the one that "
        "was there once"
    )
    assert metrics.registry.get_sample_value("broker_audit_seals_lost_total") == 1


@pytest.mark.parametrize(
    ("kept", "place"), [((3, 4, 5), "seal 4"), ((2, 3, 5), "one of the seals 3 to 4")]
)
async def test_where_it_was_taken_up_again_is_told_as_exactly_as_the_heads_allow(
    look: Look, database: Database, database_url: str, trail: AuditTrail, kept: tuple[int, ...],
    place: str,
) -> None:  # fmt: skip
    rows = await database.fetch("SELECT number, mac FROM audit_seals WHERE number = ANY ($1)", kept)
    heads = [Head(row["number"], row["mac"]) for row in rows]
    await tamper(
        database_url,
        "DELETE FROM audit_events WHERE batch IN (SELECT batch FROM audit_seals WHERE number = 5)",
        "DELETE FROM audit_seals WHERE number = 5",
    )
    for _ in range(3):
        trail.record(action="token_handed_out", outcome="ok")
        await trail.flush()
    (fault,) = await look(heads=heads)
    assert fault.startswith(f"rolled back: to {place}, and written on since: seal 5 is another")


async def test_a_broker_misses_its_own_seal_though_the_database_denies_it(
    database_url: str, trail: AuditTrail, metrics: Metrics
) -> None:
    await tamper(
        database_url,
        "DELETE FROM audit_events WHERE batch IN (SELECT batch FROM audit_seals WHERE number = 5)",
        "DELETE FROM audit_seals WHERE number = 5",
        "CREATE OR REPLACE FUNCTION audit_head(own_number bigint, own_mac bytea) "
        "RETURNS TABLE (number bigint, mac bytea, holds_own boolean) LANGUAGE sql AS "
        "'SELECT number, mac, true FROM audit_seals ORDER BY number DESC LIMIT 1'",
    )
    trail.record(action="token_handed_out", outcome="ok")
    await trail.flush()
    assert metrics.registry.get_sample_value("broker_audit_seals_lost_total") == 1


async def test_a_trail_that_was_emptied_is_found_by_its_head(
    look: Look, database: Database, database_url: str
) -> None:
    head = await _head(database)
    await tamper(database_url, "TRUNCATE audit_events, audit_seals RESTART IDENTITY")
    assert await look() == []
    assert await look(heads=[head]) == [
        "rolled back: to seal 0: seal 5 was there once, and is gone"
    ]


async def test_a_trail_that_was_emptied_is_found_by_the_ids_it_gave(
    look: Look, database_url: str
) -> None:
    await tamper(database_url, "TRUNCATE audit_events, audit_seals")
    assert await look() == [
        "removed: all records, it seems: ids up to 15 were given, and nothing is there"
    ]


async def test_a_trail_that_never_was_is_whole(look: Look, database_url: str) -> None:
    await tamper(database_url, "TRUNCATE audit_events, audit_seals RESTART IDENTITY")
    assert await look() == []


WIPED = ("UPDATE audit_events SET batch = NULL", "TRUNCATE audit_seals")
"""As if every record were from before there were seals."""


async def _sealed_since(database_url: str, moment: str) -> None:
    change = f"UPDATE schema_migrations SET applied_at = {moment} WHERE name = 'audit_seals'"
    await tamper(database_url, change)


async def _begin_anew(database: Database, clock: ManualClock) -> None:
    """One record, by a broker that finds what there is."""
    anew = AuditTrail(database, clock, Metrics(), KEYS)
    anew.record(action="token_handed_out", outcome="ok")
    await anew.flush()


async def test_records_that_lost_all_seals_are_found(look: Look, database_url: str) -> None:
    await _sealed_since(database_url, "'2025-12-01'")
    await tamper(database_url, *WIPED)
    (fault,) = await look()
    assert fault == (
        "gap: all seals are missing: 15 records without a seal, from id 1 on, are of a time when "
        "every broker sealed (after 2025-12-02T00:00:00Z)"
    )


async def test_records_that_lost_their_seals_are_found_though_a_new_chain_began(
    look: Look, database_url: str, database: Database, clock: ManualClock
) -> None:
    await _sealed_since(database_url, "'2025-12-01'")
    await tamper(database_url, *WIPED)
    await _begin_anew(database, clock)
    (fault,) = await look()
    assert fault.startswith("added: 15 records without a seal, from id 1 on, are of a time when")


@pytest.mark.parametrize("moment", ["'infinity'", "'290000-01-01'", "'-infinity'"])
async def test_a_history_that_can_not_be_is_no_excuse(
    look: Look, database_url: str, moment: str
) -> None:
    await _sealed_since(database_url, moment)
    await tamper(
        database_url,
        *WIPED,
        "UPDATE audit_events SET at = now() + interval '25 hours'",
    )
    (fault,) = await look()
    assert fault.startswith("gap: all seals are missing: 15 records")


NO_HISTORY = "DELETE FROM schema_migrations WHERE name = 'audit_seals'"
UNKNOWN_SINCE = "gap: the schema's history does not say when seals came"


@pytest.mark.parametrize("at", ["at", "'-infinity'"])
async def test_without_seals_and_history_no_record_is_taken_for_an_old_one(
    look: Look, database_url: str, at: str
) -> None:
    await tamper(database_url, *WIPED, NO_HISTORY, f"UPDATE audit_events SET at = {at}")
    history, seals = await look()
    assert history == UNKNOWN_SINCE
    assert seals == (
        "gap: all seals are missing: 15 records without a seal, from id 1 on, which nothing shows "
        "to be older than seals"
    )


async def test_a_history_that_lost_the_coming_of_seals_is_found_though_a_new_chain_began(
    look: Look, database_url: str, database: Database, clock: ManualClock
) -> None:
    await tamper(database_url, *WIPED, NO_HISTORY)
    await _begin_anew(database, clock)
    assert await look() == [UNKNOWN_SINCE]


async def test_right_after_an_upgrade_there_is_no_seal_and_nothing_wrong(
    look: Look, database_url: str
) -> None:
    await _sealed_since(database_url, "'2026-01-01'")
    await tamper(database_url, *WIPED)
    assert await look() == []


async def test_the_time_without_seals_can_be_told_to_have_lasted(
    look: Look, database_url: str, clock: ManualClock
) -> None:
    await _sealed_since(database_url, "'2025-12-01'")
    await tamper(database_url, *WIPED)
    assert await look(unsealed_until=clock.now()) == []


async def test_records_of_the_release_before_are_told_apart(
    database: Database, look: Look, clock: ManualClock
) -> None:
    for at in (clock.now() - timedelta(days=300), clock.now() + timedelta(hours=20)):
        await database.execute(
            "INSERT INTO audit_events (at, action, outcome) VALUES ($1, 'consent', 'x')", at
        )
    assert await look() == []


async def test_a_roll_back_that_lasted_longer_can_be_told(
    database: Database, look: Look, clock: ManualClock
) -> None:
    at = clock.now() + timedelta(days=3)
    await database.execute(
        "INSERT INTO audit_events (at, action, outcome) VALUES ($1, 'consent', 'x')", at
    )
    assert len(await look()) == 1
    assert await look(unsealed_until=at) == []
    assert len(await look(unsealed_until=at - timedelta(seconds=1))) == 1


@pytest.mark.parametrize("table", ["audit_events", "audit_seals", "audit_checkpoints"])
@pytest.mark.parametrize(
    "statement", ["UPDATE {} SET {} = {}", "DELETE FROM {}", "TRUNCATE {}"], ids=lambda s: s[:6]
)
async def test_accidents_are_refused(
    database: Database, table: str, statement: str, look: Look
) -> None:
    column = "batch" if table == "audit_events" else "number"
    with pytest.raises(Exception, match="the audit trail is append-only"):
        await database.execute(statement.format(table, column, column))
    assert await look() == []
