"""One chain for all replicas: concurrent writers, lost replicas, commits of unknown outcome."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from broker.audit.batch_writer import AuditChain, UnsignedBatch
from broker.audit.trail import AuditTrail
from broker.database.database import Connection, Database, StorageBusy, StorageUnavailable
from broker.secret import Secret
from broker.telemetry.metrics import Metrics
from tests.audit.conftest import Look
from tests.support.audit import KEYS, tamper
from tests.support.clock import ManualClock

REPLICAS = 4


def _record(trail: AuditTrail, *request_ids: str) -> None:
    for request_id in request_ids:
        trail.record(action="a", outcome="ok", request_id=request_id)


async def _request_ids(database: Database) -> list[str]:
    rows = await database.fetch("SELECT request_id FROM audit_events ORDER BY id")
    return [row["request_id"] for row in rows]


@pytest.fixture
async def replicas(database_url: str, clock: ManualClock) -> AsyncIterator[list[AuditTrail]]:
    async with AsyncExitStack() as stack:
        trails: list[AuditTrail] = []
        for _ in range(REPLICAS):
            database = Database(Secret(database_url), command_seconds=60)
            await database.open()
            stack.push_async_callback(database.close)
            trails.append(AuditTrail(database, clock, Metrics(), KEYS))
        yield trails


async def test_concurrent_replicas_write_one_valid_chain(
    database: Database, replicas: list[AuditTrail], look: Look
) -> None:
    async def write(number: int, trail: AuditTrail) -> None:
        for batch in range(10):
            _record(trail, *(f"{number}-{batch}-{record}" for record in range(700)))
            await trail.flush()

    await asyncio.gather(*(write(number, trail) for number, trail in enumerate(replicas)))
    assert await look() == []
    assert len(set(await _request_ids(database))) == REPLICAS * 7000
    assert await database.fetchval("SELECT max(number) FROM audit_seals") == REPLICAS * 10


async def test_replicas_wait_for_the_lock_of_the_chain(
    database: Database, replicas: list[AuditTrail], look: Look
) -> None:
    one, other, *_ = replicas
    async with database.transaction() as connection:
        await connection.fetch("SELECT * FROM audit_head(NULL, NULL)")
        _record(one, "one")
        _record(other, "other")
        writing = [asyncio.create_task(trail.flush()) for trail in (one, other)]
        done, _ = await asyncio.wait(writing, timeout=0.3)
        assert not done
    await asyncio.gather(*writing)
    assert sorted(await _request_ids(database)) == ["one", "other"]
    assert await look() == []


async def test_a_replica_lost_inside_its_transaction_blocks_the_others_only_briefly(
    database: Database, replicas: list[AuditTrail]
) -> None:
    """PostgreSQL ends its transaction three seconds after its last statement."""
    async with database.connection() as connection:
        await connection.execute("BEGIN")
        await connection.fetch("SELECT * FROM audit_head(NULL, NULL)")
        _record(replicas[0], "one")
        async with asyncio.timeout(30):
            while await _is_kept_waiting(replicas[0]):
                pass
        assert await _request_ids(replicas[0].chain._database) == ["one"]


async def _is_kept_waiting(trail: AuditTrail) -> bool:
    """Flush; return True if the lock of the chain was not free in time."""
    try:
        await trail.flush()
    except StorageBusy:
        return True
    return False


class _LostCommit(AuditChain):
    """A chain whose connection breaks at the commit: just after it, or just before."""

    def __init__(self, *args: Any, is_committed: bool) -> None:
        super().__init__(*args)
        self._is_committed = is_committed
        self.breaks = True

    async def append(self, batch: UnsignedBatch) -> bool:
        if self.breaks and self._is_committed:
            await super().append(batch)
        if self.breaks:
            raise StorageUnavailable("the connection broke")
        return await super().append(batch)


@pytest.mark.parametrize("is_committed", [True, False])
async def test_a_batch_whose_commit_has_an_unknown_outcome_is_written_once(
    database: Database, clock: ManualClock, metrics: Metrics, look: Look, is_committed: bool
) -> None:
    trail = AuditTrail(database, clock, metrics, KEYS)
    chain = _LostCommit(database, clock, metrics, KEYS, is_committed=is_committed)
    trail.chain = chain
    _record(trail, "one", "two")
    with pytest.raises(StorageUnavailable):
        await trail.flush()
    _record(trail, "three")
    chain.breaks = False
    await trail.flush()
    assert await _request_ids(database) == ["one", "two", "three"]
    assert await look() == []


async def test_a_commit_that_completes_during_the_retry_is_not_repeated(
    database: Database, database_url: str, clock: ManualClock, look: Look
) -> None:
    trail = AuditTrail(database, clock, Metrics(), KEYS)
    _record(trail, "one")
    held = await asyncpg.connect(database_url)
    try:
        await held.execute("BEGIN")
        batch = UnsignedBatch(trail.chain.new_batch_id(), list(trail._buffer))
        signed, _ = await trail.chain._write(_as_pooled(held), batch)
        assert signed.number == 1
        trail._in_doubt = (batch.id, 1)
        writing = asyncio.create_task(trail.flush())
        done, _ = await asyncio.wait([writing], timeout=0.3)
        assert not done
        await held.execute("COMMIT")
        with pytest.raises(StorageUnavailable, match="has written"):
            await writing
    finally:
        await held.close()
    await trail.flush()
    assert await _request_ids(database) == ["one"]
    assert await look() == []


def _as_pooled(connection: asyncpg.Connection) -> Connection:
    pooled: Connection = connection  # type: ignore[assignment]
    return pooled


async def test_a_batch_id_taken_by_another_replica_is_replaced(
    database: Database, replicas: list[AuditTrail], look: Look
) -> None:
    one, other, *_ = replicas
    _record(one, "one")
    await one.flush()
    taken = await database.fetchval("SELECT batch FROM audit_seals")
    _record(other, "other")
    other._in_doubt = (taken, 1)
    await other.flush()
    assert await _request_ids(database) == ["one", "other"]
    assert await look() == []


async def test_records_are_rolled_back_if_their_mac_cannot_be_stored(
    database: Database, trail: AuditTrail
) -> None:
    await database.execute("ALTER TABLE audit_seals ADD CONSTRAINT no CHECK (records <> 2)")
    _record(trail, "one", "two")
    with pytest.raises(Exception, match="violates check constraint"):
        await trail.flush()
    assert await _request_ids(database) == []


async def test_a_failover_that_lost_batches_is_reported_and_the_chain_continues(
    database: Database,
    database_url: str,
    trail: AuditTrail,
    metrics: Metrics,
    look: Look,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for request_id in ("one", "two", "three"):
        _record(trail, request_id)
        await trail.flush()
    await tamper(
        database_url,
        "DELETE FROM audit_events WHERE request_id IN ('two', 'three')",
        "DELETE FROM audit_seals WHERE number > 1",
    )
    for request_id in ("four", "five"):
        _record(trail, request_id)
        await trail.flush()
    assert await _request_ids(database) == ["one", "four", "five"]
    assert await look() == []
    assert metrics.registry.get_sample_value("broker_audit_seals_lost_total") == 1
    assert [r for r in caplog.records if getattr(r, "event", "") == "audit_batches_lost"]


async def test_a_new_head_is_logged_every_ten_minutes_and_at_the_stop(
    trail: AuditTrail, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    def heads() -> list[str]:
        return [r.head.partition(":")[0] for r in caplog.records if hasattr(r, "head")]

    caplog.set_level("INFO")
    for _ in range(5):
        _record(trail, "one")
        await trail.flush()
        clock.advance(timedelta(minutes=4))
    assert heads() == ["1", "4"]
    trail.chain.log_head()
    trail.chain.log_head()
    assert heads() == ["1", "4", "5"]


@pytest.mark.parametrize("year", [2039, 2040, 2200])
async def test_records_are_written_with_a_clock_far_ahead(
    database: Database, clock: ManualClock, trail: AuditTrail, look: Look, year: int
) -> None:
    clock.advance(datetime(year, 12, 31, tzinfo=UTC) - clock.now())
    _record(trail, "one")
    await trail.flush()
    assert await _request_ids(database) == ["one"]
    assert await look() == []
