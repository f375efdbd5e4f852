"""Verification finds every change to a written trail, and names its kind."""

import re
from datetime import timedelta

import pytest

from broker.audit.batch_macs import ChainHead, audit_keys
from broker.audit.trail import AuditTrail
from broker.audit.verification import TrailVerifier
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


async def _head(database: Database) -> ChainHead:
    row = await database.fetchrow(
        "SELECT number, mac FROM audit_seals ORDER BY number DESC LIMIT 1"
    )
    assert row is not None
    return ChainHead(row["number"], row["mac"])


async def test_an_untouched_trail_has_no_faults(look: Look) -> None:
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
    assert fault.startswith("changed: some of the 3 records of batch 3 (2026-")


async def test_reordered_records_are_found(look: Look, database_url: str) -> None:
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
    assert fault.startswith("removed: 1 of the 3 records of batch 3")


async def test_a_batch_without_its_records_is_found(look: Look, database_url: str) -> None:
    await tamper(database_url, f"DELETE FROM audit_events {OF_3}")
    (fault,) = await look()
    assert fault.startswith("removed: 3 of the 3 records of batch 3")


async def test_a_record_moved_to_another_batch_is_found(look: Look, database_url: str) -> None:
    other = "(SELECT batch FROM audit_seals WHERE number = 4)"
    await tamper(database_url, f"UPDATE audit_events SET batch = {other} {LAST_OF_3}")
    removed, added = await look()
    assert removed.startswith("removed: 1 of the 3 records of batch 3")
    assert added.startswith("added: 1 more than the 3 records of batch 4")


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        (
            "(SELECT batch FROM audit_seals WHERE number = 3)",
            "1 more than the 3 records of batch 3",
        ),
        ("77", "1 record from id 16 on have batch id 77, which is not in the chain"),
        (
            "NULL",
            "1 record without a batch, from id 16 on, date from when every release had batches",
        ),
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


async def test_a_batch_removed_with_its_mac_leaves_a_gap(look: Look, database_url: str) -> None:
    await tamper(
        database_url,
        f"DELETE FROM audit_events {OF_3}",
        "DELETE FROM audit_seals WHERE number = 3",
    )
    assert await look() == ["gap: batch 3 is missing"]


async def test_removed_first_batches_leave_a_gap(look: Look, database_url: str) -> None:
    await tamper(
        database_url,
        "DELETE FROM audit_events WHERE batch IN (SELECT batch FROM audit_seals WHERE number < 4)",
        "DELETE FROM audit_seals WHERE number < 4",
    )
    assert await look() == ["gap: batches 1 to 3 are missing"]


async def test_renumbering_does_not_hide_a_removed_batch(look: Look, database_url: str) -> None:
    await tamper(
        database_url,
        f"DELETE FROM audit_events {OF_3}",
        "DELETE FROM audit_seals WHERE number = 3",
        "UPDATE audit_seals SET number = 3 WHERE number = 4",
        "UPDATE audit_seals SET number = 4 WHERE number = 5",
    )
    assert await look() == [
        "forged batch: batch 3 does not continue the one before it",
        "forged batch: batch 3: the MAC is invalid",
        "forged batch: batch 4: the MAC is invalid",
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
async def test_a_changed_mac_row_is_found(look: Look, database_url: str, change: str) -> None:
    await tamper(database_url, f"UPDATE audit_seals SET {change} WHERE number = 3")
    assert "forged batch: batch 3: the MAC is invalid" in await look()


async def test_a_batch_signed_with_an_unknown_key_is_found(
    look: Look, database: Database, clock: ManualClock
) -> None:
    strange = AuditTrail(database, clock, Metrics(), audit_keys([Secret("another key" * 4)]))
    strange.record(action="token_handed_out", outcome="ok")
    await strange.flush()
    (fault,) = await look()
    assert fault.startswith("unknown key: batch 6 was signed with audit:")


async def test_an_old_key_verifies_the_batches_that_it_signed(
    database: Database, clock: ManualClock
) -> None:
    keys = audit_keys([Secret("the new key, which is long enough"), SECRET_KEY])
    trail = AuditTrail(database, clock, Metrics(), keys)
    trail.record(action="token_handed_out", outcome="ok")
    await trail.flush()
    verification = TrailVerifier(keys)
    async with database.connection() as connection:
        assert [fault async for fault in verification.faults(connection)] == []
    assert (verification.progress.batches, verification.progress.records) == (6, 16)


async def test_a_cut_off_end_is_found_by_its_head(
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
    (fault,) = await look(heads=[head, ChainHead(7, bytes(32))])
    assert re.fullmatch(
        r"rolled back: to batch 4 \(2026-[0-9T:-]+Z\): batch 7 of the given head is missing", fault
    )


async def test_a_rewritten_end_is_found_by_its_head(
    look: Look, database: Database, database_url: str, trail: AuditTrail, metrics: Metrics
) -> None:
    """The replica that wrote it notices, too, at its next batch."""
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
        "rolled back: to before batch 5, and continued: batch 5 is not the one of the given head"
    )
    assert metrics.registry.get_sample_value("broker_audit_seals_lost_total") == 1


@pytest.mark.parametrize(
    ("kept", "place"), [((3, 4, 5), "batch 4"), ((2, 3, 5), "one of batches 3 to 4")]
)
async def test_the_place_of_a_rollback_is_named_as_exactly_as_the_heads_allow(
    look: Look, database: Database, database_url: str, trail: AuditTrail, kept: tuple[int, ...],
    place: str,
) -> None:  # fmt: skip
    rows = await database.fetch("SELECT number, mac FROM audit_seals WHERE number = ANY ($1)", kept)
    heads = [ChainHead(row["number"], row["mac"]) for row in rows]
    await tamper(
        database_url,
        "DELETE FROM audit_events WHERE batch IN (SELECT batch FROM audit_seals WHERE number = 5)",
        "DELETE FROM audit_seals WHERE number = 5",
    )
    for _ in range(3):
        trail.record(action="token_handed_out", outcome="ok")
        await trail.flush()
    (fault,) = await look(heads=heads)
    assert fault.startswith(f"rolled back: to {place}, and continued: batch 5 is not")


async def test_a_replica_notices_its_lost_batch_although_the_database_denies_the_loss(
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


async def test_an_emptied_trail_is_found_by_its_head(
    look: Look, database: Database, database_url: str
) -> None:
    head = await _head(database)
    await tamper(database_url, "TRUNCATE audit_events, audit_seals RESTART IDENTITY")
    assert await look() == []
    assert await look(heads=[head]) == [
        "rolled back: to batch 0: batch 5 of the given head is missing"
    ]


async def test_an_emptied_trail_is_found_by_its_id_sequence(look: Look, database_url: str) -> None:
    await tamper(database_url, "TRUNCATE audit_events, audit_seals")
    assert await look() == [
        "removed: all records, probably: ids up to 15 were used, and no record exists"
    ]


async def test_a_trail_that_was_never_used_has_no_faults(look: Look, database_url: str) -> None:
    await tamper(database_url, "TRUNCATE audit_events, audit_seals RESTART IDENTITY")
    assert await look() == []


WIPED = ("UPDATE audit_events SET batch = NULL", "TRUNCATE audit_seals")
"""Makes every record look like one of a release without a chain."""


async def _chain_since(database_url: str, moment: str) -> None:
    change = f"UPDATE schema_migrations SET applied_at = {moment} WHERE name = 'audit_seals'"
    await tamper(database_url, change)


async def _start_new_chain(database: Database, clock: ManualClock) -> None:
    """Write one record with a new broker."""
    trail = AuditTrail(database, clock, Metrics(), KEYS)
    trail.record(action="token_handed_out", outcome="ok")
    await trail.flush()


async def test_the_loss_of_the_whole_chain_is_found(look: Look, database_url: str) -> None:
    await _chain_since(database_url, "'2025-12-01'")
    await tamper(database_url, *WIPED)
    (fault,) = await look()
    assert fault == (
        "gap: the whole chain is missing: 15 records without a batch, from id 1 on, date from when "
        "every release had batches (after 2025-12-02T00:00:00Z)"
    )


async def test_the_loss_of_the_whole_chain_is_found_after_a_new_one_began(
    look: Look, database_url: str, database: Database, clock: ManualClock
) -> None:
    await _chain_since(database_url, "'2025-12-01'")
    await tamper(database_url, *WIPED)
    await _start_new_chain(database, clock)
    (fault,) = await look()
    assert fault.startswith("added: 15 records without a batch, from id 1 on, date from when")


@pytest.mark.parametrize("moment", ["'infinity'", "'290000-01-01'", "'-infinity'"])
async def test_an_impossible_migration_time_does_not_excuse_records_without_a_batch(
    look: Look, database_url: str, moment: str
) -> None:
    await _chain_since(database_url, moment)
    await tamper(
        database_url,
        *WIPED,
        "UPDATE audit_events SET at = now() + interval '25 hours'",
    )
    (fault,) = await look()
    assert fault.startswith("gap: the whole chain is missing: 15 records")


NO_HISTORY = "DELETE FROM schema_migrations WHERE name = 'audit_seals'"
UNKNOWN_SINCE = "gap: the schema's history does not say when the chain was introduced"


@pytest.mark.parametrize("at", ["at", "'-infinity'"])
async def test_without_chain_and_history_no_record_counts_as_old(
    look: Look, database_url: str, at: str
) -> None:
    await tamper(database_url, *WIPED, NO_HISTORY, f"UPDATE audit_events SET at = {at}")
    history, chain = await look()
    assert history == UNKNOWN_SINCE
    assert chain == (
        "gap: the whole chain is missing: 15 records without a batch, from id 1 on, which nothing "
        "proves to be older than the chain"
    )


async def test_a_deleted_migration_entry_is_found_after_a_new_chain_began(
    look: Look, database_url: str, database: Database, clock: ManualClock
) -> None:
    await tamper(database_url, *WIPED, NO_HISTORY)
    await _start_new_chain(database, clock)
    assert await look() == [UNKNOWN_SINCE]


async def test_right_after_the_upgrade_records_without_a_batch_are_no_fault(
    look: Look, database_url: str
) -> None:
    await _chain_since(database_url, "'2026-01-01'")
    await tamper(database_url, *WIPED)
    assert await look() == []


async def test_unsealed_until_extends_the_time_of_records_without_a_batch(
    look: Look, database_url: str, clock: ManualClock
) -> None:
    await _chain_since(database_url, "'2025-12-01'")
    await tamper(database_url, *WIPED)
    assert await look(unsealed_until=clock.now()) == []


async def test_records_of_the_previous_release_are_no_fault(
    database: Database, look: Look, clock: ManualClock
) -> None:
    for at in (clock.now() - timedelta(days=300), clock.now() + timedelta(hours=20)):
        await database.execute(
            "INSERT INTO audit_events (at, action, outcome) VALUES ($1, 'consent', 'x')", at
        )
    assert await look() == []


async def test_unsealed_until_covers_a_long_rollback_exactly(
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
async def test_triggers_refuse_accidental_changes(
    database: Database, table: str, statement: str, look: Look
) -> None:
    column = "batch" if table == "audit_events" else "number"
    with pytest.raises(Exception, match="the audit trail is append-only"):
        await database.execute(statement.format(table, column, column))
    assert await look() == []
