"""Retention deletes whole batches; the rest verifies, and earlier faults stay known."""

from datetime import timedelta

import pytest

from broker.audit.batch_macs import ChainHead, audit_keys
from broker.audit.retention import IDLE_INTERVAL, AuditRetention
from broker.audit.trail import AuditTrail
from broker.audit.verification import TrailVerifier
from broker.database.database import Database
from broker.secret import Secret
from broker.telemetry.metrics import Metrics
from tests.audit.conftest import Look
from tests.support.audit import KEYS, SECRET_KEY, tamper
from tests.support.clock import ManualClock

KEEP = timedelta(days=10)
DAY = timedelta(days=1)


@pytest.fixture
def retention(database: Database, clock: ManualClock, metrics: Metrics) -> AuditRetention:
    return AuditRetention(database=database, clocks=[clock], metrics=metrics, keys=KEYS, keep=KEEP)


async def _write(trail: AuditTrail, clock: ManualClock, *, days: int, each: int = 2) -> None:
    for day in range(days):
        for number in range(each):
            trail.record(action="a", outcome="ok", request_id=f"{day}-{number}")
        await trail.flush()
        clock.advance(DAY)


async def _numbers(database: Database) -> list[int]:
    rows = await database.fetch("SELECT number FROM audit_seals ORDER BY number")
    return [row["number"] for row in rows]


async def test_old_batches_are_deleted_and_the_rest_verifies(
    database: Database, trail: AuditTrail, clock: ManualClock, retention: AuditRetention, look: Look
) -> None:
    await _write(trail, clock, days=15)
    await retention.purge()
    assert await _numbers(database) == list(range(6, 16))
    assert await database.fetchval("SELECT count(*) FROM audit_events") == 20
    assert await look() == []
    verification = TrailVerifier(KEYS)
    async with database.connection() as connection:
        assert [fault async for fault in verification.faults(connection)] == []
    checkpoint = verification.progress.checkpoint
    assert checkpoint is not None
    assert (checkpoint.number, checkpoint.records, checkpoint.faults) == (5, 10, 0)


async def test_the_chain_continues_after_all_records_were_deleted(
    database: Database, trail: AuditTrail, clock: ManualClock, retention: AuditRetention, look: Look
) -> None:
    await _write(trail, clock, days=3)
    clock.advance(KEEP)
    await retention.purge()
    assert await _numbers(database) == []
    assert await look() == []
    await _write(trail, clock, days=1)
    assert await _numbers(database) == [4]
    assert await look() == []


async def test_a_replica_does_not_report_retention_as_a_loss(
    trail: AuditTrail, clock: ManualClock, retention: AuditRetention, metrics: Metrics,
    database: Database,
) -> None:  # fmt: skip
    other = AuditTrail(database, clock, metrics, KEYS)
    await _write(other, clock, days=1)
    await _write(trail, clock, days=2)
    clock.advance(KEEP)
    await retention.purge()
    await _write(other, clock, days=1)
    assert metrics.registry.get_sample_value("broker_audit_seals_lost_total") == 0


async def test_repeated_runs_add_up_in_the_checkpoint(
    database: Database, trail: AuditTrail, clock: ManualClock, retention: AuditRetention, look: Look
) -> None:
    for _ in range(3):
        await _write(trail, clock, days=8)
        await retention.purge()
        assert await look() == []
    row = await database.fetchrow("SELECT count(*), max(records) FROM audit_checkpoints")
    assert row is not None
    assert tuple(row) == (1, 2 * (24 - 10))


async def test_without_a_retention_period_nothing_is_deleted(
    database: Database, trail: AuditTrail, clock: ManualClock, metrics: Metrics
) -> None:
    await _write(trail, clock, days=2)
    clock.advance(timedelta(days=10_000))
    keeping = AuditRetention(
        database=database, clocks=[clock], metrics=metrics, keys=KEYS, keep=None
    )
    await keeping.purge()
    assert await _numbers(database) == [1, 2]


async def test_one_clock_set_ahead_deletes_nothing(
    database: Database, trail: AuditTrail, clock: ManualClock, metrics: Metrics
) -> None:
    await _write(trail, clock, days=1)
    ahead = ManualClock()
    ahead.advance(timedelta(days=10_000))
    retention = AuditRetention(
        database=database, clocks=[ahead, clock], metrics=metrics, keys=KEYS, keep=KEEP
    )
    await retention.purge()
    assert await _numbers(database) == [1]


async def test_records_dated_years_ahead_do_not_block_retention(
    database: Database, trail: AuditTrail, clock: ManualClock, retention: AuditRetention, look: Look
) -> None:
    await _write(trail, clock, days=1)
    clock.advance(3650 * DAY)
    trail.record(action="a", outcome="ok", request_id="ahead")
    await trail.flush()
    clock.advance(-3650 * DAY)
    await retention.purge()
    assert await _numbers(database) == [1, 2]
    await _write(trail, clock, days=13)
    await retention.purge()
    assert await _numbers(database) == list(range(6, 16))
    assert await look() == []


async def test_old_records_without_a_batch_are_deleted(
    database: Database, clock: ManualClock, retention: AuditRetention
) -> None:
    for age in (KEEP + DAY, KEEP - DAY):
        await database.execute(
            "INSERT INTO audit_events (at, action, outcome) VALUES ($1, 'a', 'b')",
            clock.now() - age,
        )
    await retention.purge()
    assert await database.fetchval("SELECT count(*) FROM audit_events") == 1


async def test_it_pauses_when_nothing_is_left(
    database: Database, trail: AuditTrail, clock: ManualClock, retention: AuditRetention
) -> None:
    await retention.purge()
    await _write(trail, clock, days=1)
    clock.advance(KEEP - DAY - IDLE_INTERVAL / 2)
    await retention.purge()
    clock.advance(IDLE_INTERVAL * 0.75)
    await retention.purge()
    assert await _numbers(database) == [1]
    clock.advance(IDLE_INTERVAL)
    await retention.purge()
    assert await _numbers(database) == []


async def test_many_records_are_deleted_in_portions(
    database: Database, trail: AuditTrail, clock: ManualClock, retention: AuditRetention
) -> None:
    await _write(trail, clock, days=3, each=6000)
    clock.advance(KEEP)
    left = []
    while await retention.delete_portion(clock.now() - KEEP + DAY):
        left.append(await database.fetchval("SELECT count(*) FROM audit_events"))
    assert left == [12_000, 6_000, 0]


async def test_only_one_replica_deletes(
    database: Database, trail: AuditTrail, clock: ManualClock, retention: AuditRetention
) -> None:
    await _write(trail, clock, days=1)
    clock.advance(KEEP)
    async with database.transaction() as connection:
        await connection.execute("SELECT pg_advisory_xact_lock(7305417121)")
        await retention.purge()
    assert await _numbers(database) == [1]


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM audit_events WHERE request_id = '1-0'",
        "DELETE FROM audit_seals WHERE number = 2",
        "UPDATE audit_seals SET digest = sha256('') WHERE number = 2",
    ],
)
async def test_faults_in_the_deleted_part_stay_known(
    database: Database,
    database_url: str,
    trail: AuditTrail,
    clock: ManualClock,
    retention: AuditRetention,
    metrics: Metrics,
    statement: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await _write(trail, clock, days=15)
    await tamper(database_url, statement)
    await retention.purge()
    assert await database.fetchval("SELECT faults FROM audit_checkpoints") == 1
    assert metrics.registry.get_sample_value("broker_audit_faults_total") == 1
    assert [
        r
        for r in caplog.records
        if r.levelname == "ERROR" and getattr(r, "event", "") == "audit_faults_found"
    ]


async def test_batches_deleted_too_early_are_a_gap(
    database_url: str, trail: AuditTrail, clock: ManualClock, retention: AuditRetention, look: Look
) -> None:
    await _write(trail, clock, days=15)
    await retention.purge()
    await tamper(
        database_url,
        "DELETE FROM audit_events WHERE batch IN (SELECT batch FROM audit_seals WHERE number < 8)",
        "DELETE FROM audit_seals WHERE number < 8",
    )
    assert await look() == ["gap: batches 6 to 7 are missing"]


@pytest.mark.parametrize(
    "change",
    [
        "number = 7, seal_mac = (SELECT previous_mac FROM audit_seals WHERE number = 8)",
        "faults = 3",
        "until = 'infinity'",
        "records = 1",
    ],
)
async def test_a_forged_checkpoint_is_found(
    database_url: str,
    trail: AuditTrail,
    clock: ManualClock,
    retention: AuditRetention,
    look: Look,
    change: str,
) -> None:
    await _write(trail, clock, days=15)
    await retention.purge()
    await tamper(database_url, f"UPDATE audit_checkpoints SET {change}")
    forged, gap = await look()
    assert forged.startswith("forged batch: the checkpoint of retention after batch ")
    assert gap == "gap: batches 1 to 5 are missing"


async def test_a_head_older_than_the_retained_trail_is_no_fault(
    database: Database, trail: AuditTrail, clock: ManualClock, retention: AuditRetention, look: Look
) -> None:
    await _write(trail, clock, days=15)
    rows = await database.fetch("SELECT number, mac FROM audit_seals WHERE number IN (2, 5)")
    heads = [ChainHead(row["number"], row["mac"]) for row in rows]
    await retention.purge()
    assert await look(heads=heads) == []
    (fault,) = await look(heads=[ChainHead(5, bytes(32))])
    assert fault.endswith("batch 5 is not the one of the given head")


OF_A_LOST_KEY = "key_id = 'audit:0123456789abcdef'"
LONG_AGO = "last_at = '2020-01-01'"


async def test_records_removed_under_the_name_of_a_lost_key_stay_known(
    database: Database,
    database_url: str,
    trail: AuditTrail,
    clock: ManualClock,
    retention: AuditRetention,
    metrics: Metrics,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await _write(trail, clock, days=5)
    await tamper(
        database_url,
        "DELETE FROM audit_events WHERE request_id LIKE '3-%'",
        f"UPDATE audit_seals SET {OF_A_LOST_KEY}, {LONG_AGO} WHERE number < 5",
        "UPDATE audit_seals SET records = 0 WHERE number = 4",
    )
    await retention.purge()
    assert await _numbers(database) == [5]
    assert await database.fetchval("SELECT unverified FROM audit_checkpoints") == 4
    assert metrics.registry.get_sample_value("broker_audit_unverified_total") == 4
    assert [r for r in caplog.records if getattr(r, "unverified_batches", 0) == 4]
    # Resetting the count makes the checkpoint's MAC invalid.
    await tamper(database_url, "UPDATE audit_checkpoints SET unverified = 0")
    verification = TrailVerifier(KEYS)
    async with database.connection() as connection:
        faults = [str(fault) async for fault in verification.faults(connection)]
    assert faults[0].startswith("forged batch: the checkpoint of retention after batch 4")


async def test_unverified_batches_add_up_in_the_checkpoint(
    database: Database, database_url: str, trail: AuditTrail, clock: ManualClock,
    retention: AuditRetention, look: Look,
) -> None:  # fmt: skip
    await _write(trail, clock, days=15)
    await tamper(database_url, f"UPDATE audit_seals SET {OF_A_LOST_KEY} WHERE number < 8")
    await retention.purge()
    clock.advance(KEEP / 2)
    await retention.purge()
    row = await database.fetchrow("SELECT number, faults, unverified FROM audit_checkpoints")
    assert row is not None
    assert tuple(row) == (10, 0, 7)
    assert await look() == []


async def test_retention_does_not_trust_a_checkpoint_of_a_lost_key(
    database: Database,
    database_url: str,
    trail: AuditTrail,
    clock: ManualClock,
    retention: AuditRetention,
    metrics: Metrics,
) -> None:
    """An attacker puts it in place of removed batches; retention must not sign it."""
    await _write(trail, clock, days=5)
    await tamper(
        database_url,
        "INSERT INTO audit_checkpoints SELECT 3, mac, '2020-01-01', '2020-01-01', 1, 0, "
        "'audit:0123456789abcdef', mac FROM audit_seals WHERE number = 3",
        "DELETE FROM audit_events WHERE request_id < '3'",
        "DELETE FROM audit_seals WHERE number < 4",
    )
    clock.advance(KEEP)
    await retention.purge()
    row = await database.fetchrow("SELECT number, records, faults FROM audit_checkpoints")
    assert row is not None
    assert tuple(row) == (5, 4, 1)
    assert metrics.registry.get_sample_value("broker_audit_faults_total") == 1


async def test_the_checkpoint_is_signed_again_before_its_key_goes(
    database: Database, trail: AuditTrail, clock: ManualClock, metrics: Metrics,
    retention: AuditRetention,
) -> None:  # fmt: skip
    await _write(trail, clock, days=15)
    await retention.purge()
    new = Secret("the new key, which is long enough")

    async def purge(*secret_keys: Secret) -> None:
        keys = audit_keys(secret_keys)
        await AuditRetention(
            database=database, clocks=[clock], metrics=metrics, keys=keys, keep=KEEP
        ).purge()

    await purge(new, SECRET_KEY)
    clock.advance(KEEP / 2)
    await purge(new)
    row = await database.fetchrow("SELECT number, faults, unverified FROM audit_checkpoints")
    assert row is not None
    assert tuple(row) == (10, 0, 5)
    verification = TrailVerifier(audit_keys([new, SECRET_KEY]))
    async with database.connection() as connection:
        assert [fault async for fault in verification.faults(connection)] == []
