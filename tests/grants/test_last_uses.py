"""Last uses of grants are written in small portions that wait for no lock."""

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg
import pytest

from broker.crypto.sealing import Sealer, local_sealing_keys
from broker.database.database import Database, StorageUnavailable
from broker.grants import last_uses
from broker.grants.last_uses import LastUses
from broker.grants.model import LastUse
from broker.grants.store import GrantStore
from broker.secret import Secret
from tests.support.clock import ManualClock

MANY = 100_000
LONGEST_STEP_SECONDS = 0.1
"""Of CPU time. Steps take a few milliseconds; sixty thousand grants in one step took 0.3 s."""

_MANY_GRANTS = """
INSERT INTO grants (id, user_id, google_sub, email, client_id, scopes, status, sealed_refresh_token,
                    refresh_token_key_id, connected_at, updated_at)
SELECT lpad(to_hex(n), 32, '0')::uuid, 'user-' || n, 'sub-' || n, '', 'client', '{}', 'active',
       '\\x00', 'key', now(), now()
FROM generate_series(1, $1::integer) AS n
"""


async def make_grants(url: str, count: int) -> None:
    """Insert `count` grants, whose ids count from 1, without webhook events or notifications."""
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction():
            await connection.execute("SET LOCAL session_replication_role = replica")
            await connection.execute(_MANY_GRANTS, count, timeout=120)
        await connection.execute("ANALYZE grants")
    finally:
        await connection.close()


@asynccontextmanager
async def open_uses(url: str, clock: ManualClock) -> AsyncIterator[LastUses]:
    """The `LastUses` of one replica."""
    database = Database(Secret(url))
    await database.open()
    try:
        sealer = Sealer(local_sealing_keys([Secret("k" * 40)]))
        yield LastUses(GrantStore(database, sealer, clock, keep_access_tokens=True), clock)
    finally:
        await database.close()


@pytest.fixture
async def uses(database_url: str, clock: ManualClock) -> AsyncIterator[LastUses]:
    async with open_uses(database_url, clock) as opened:
        yield opened


@pytest.fixture
async def other(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """Another connection, for row locks."""
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


def key(number: int) -> bytes:
    return UUID(int=number).bytes


async def written(other: asyncpg.Connection, number: int = 1) -> LastUse | None:
    row = await other.fetchrow(
        "SELECT last_used_at, last_used_by FROM grants WHERE id = $1", UUID(int=number)
    )
    assert row is not None
    return None if row[0] is None else LastUse(row[0], row[1])


@contextmanager
def longest_step(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """Measure the CPU time of the longest event-loop step meanwhile.

    Elapsed time would include other processes; a garbage collection would depend on the size of the
    test process.
    """
    longest = [0.0]
    run = asyncio.Handle._run

    def measured(handle: asyncio.Handle) -> None:
        began = time.thread_time()
        run(handle)
        longest[0] = max(longest[0], time.thread_time() - began)

    gc.disable()
    try:
        with monkeypatch.context() as patched:
            patched.setattr(asyncio.Handle, "_run", measured)
            yield longest
    finally:
        gc.enable()


@pytest.mark.parametrize("many", [60_000, pytest.param(300_000, marks=pytest.mark.chaos)])
async def test_all_due_grants_are_written_except_a_locked_one(
    many: int,
    database_url: str,
    uses: LastUses,
    other: asyncpg.Connection,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await make_grants(database_url, many)
    for number in range(many, 0, -1):
        uses.record_use(key(number), clock.epoch(), "calendar-sync")
    held = UUID(int=many // 2)
    async with other.transaction():
        await other.execute("SELECT FROM grants WHERE id = $1 FOR UPDATE", held)
        with longest_step(monkeypatch) as longest:
            await uses.flush()
        unwritten = await other.fetch("SELECT id FROM grants WHERE last_used_at IS NULL")
        assert [row["id"] for row in unwritten] == [held]
        assert uses.due == 1
    assert longest[0] < LONGEST_STEP_SECONDS
    await uses.flush()
    assert await written(other, many // 2) == LastUse(clock.now(), "calendar-sync")
    assert uses.due == 0


async def test_the_cost_of_a_flush_does_not_grow_with_known_grants(
    uses: LastUses, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(1, MANY + 1):
        uses.record_use(key(number), clock.epoch(), "calendar-sync")
    # No such grants exist, so that none stays due.
    await uses.flush()
    for number in range(1, MANY + 1):
        uses.record_use(key(number), clock.epoch() + 1, "calendar-sync")
    with longest_step(monkeypatch) as longest:
        await uses.flush()
    assert longest[0] < LONGEST_STEP_SECONDS
    known = [key(number) for number in range(1, MANY + 1)]
    began = time.thread_time()
    copied = {each: len(each) for each in known if each}
    cost_of_copying = time.thread_time() - began
    began = time.thread_time()
    await uses.flush()
    assert time.thread_time() - began < cost_of_copying / 4
    assert len(copied) == MANY
    clock.advance(timedelta(minutes=1))
    with longest_step(monkeypatch) as longest:
        await uses.flush()
    assert longest[0] < LONGEST_STEP_SECONDS
    assert uses.due == 0


async def test_two_replicas_with_the_same_grants_do_not_block_each_other(
    database_url: str, uses: LastUses, other: asyncpg.Connection, clock: ManualClock
) -> None:
    count, rounds = 5000, 6
    await make_grants(database_url, count)
    async with open_uses(database_url, clock) as other_replica:
        for _ in range(rounds):
            clock.advance(timedelta(minutes=1))
            for number in range(1, count + 1):
                uses.record_use(key(number), clock.epoch(), "here")
                other_replica.record_use(key(count + 1 - number), clock.epoch(), "there")
            # Neither raises: none is the victim of a deadlock.
            await asyncio.gather(uses.flush(), other_replica.flush())
        await asyncio.gather(uses.flush(), other_replica.flush())
        assert (uses.due, other_replica.due) == (0, 0)
    counted = await other.fetchval(
        "SELECT count(*) FROM grants WHERE last_used_at = $1", clock.now()
    )
    assert counted == count


async def test_a_locked_grant_delays_no_other(
    database_url: str, uses: LastUses, other: asyncpg.Connection, clock: ManualClock
) -> None:
    await make_grants(database_url, 2)
    async with other.transaction():
        await other.execute("SELECT FROM grants WHERE id = $1 FOR UPDATE", UUID(int=1))
        for number in (1, 2):
            uses.record_use(key(number), clock.epoch(), "calendar-sync")
        await uses.flush()
        assert await written(other, 2) == LastUse(clock.now(), "calendar-sync")


async def test_grants_written_before_an_outage_are_not_written_again(
    database_url: str,
    uses: LastUses,
    other: asyncpg.Connection,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At the second statement a trigger closes the connection, like an outage."""
    count = 2500
    await make_grants(database_url, count)
    await other.execute(
        """
        CREATE FUNCTION cut_off() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NEW; END $$;
        CREATE TRIGGER cut_off BEFORE UPDATE ON grants FOR EACH ROW
        WHEN (NEW.id = '00000000-0000-0000-0000-0000000003e8') EXECUTE FUNCTION cut_off()
        """
    )
    for number in range(1, count + 1):
        uses.record_use(key(number), clock.epoch(), "calendar-sync")
    with pytest.raises(StorageUnavailable):
        await uses.flush()
    left = await other.fetchval("SELECT count(*) FROM grants WHERE last_used_at IS NULL")
    assert 0 < left < count
    assert uses.due == left
    await other.execute("DROP TRIGGER cut_off ON grants")
    await uses.flush()
    assert await other.fetchval("SELECT count(*) FROM grants WHERE last_used_at IS NULL") == 0


async def test_a_use_during_a_flush_is_written_by_the_next(
    database_url: str, uses: LastUses, other: asyncpg.Connection, clock: ManualClock
) -> None:
    await make_grants(database_url, 1)
    uses.record_use(key(1), clock.epoch(), "first")
    flushing = asyncio.create_task(uses.flush())
    while not flushing.done():
        clock.advance(timedelta(milliseconds=1))
        uses.record_use(key(1), clock.epoch(), "second")
        last = clock.now()
        await asyncio.sleep(0)
    assert (await written(other) or LastUse(last, None)).at < last
    clock.advance(timedelta(minutes=1))
    await uses.flush()
    assert await written(other) == LastUse(last, "second")


async def test_the_minute_of_a_grant_begins_before_a_slow_write(
    database_url: str,
    uses: LastUses,
    other: asyncpg.Connection,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await make_grants(database_url, 1)
    uses.record_use(key(1), clock.epoch(), "first")
    write = GrantStore.write_last_uses

    async def slow_write(store: GrantStore, last: Mapping[UUID, LastUse]) -> Sequence[UUID]:
        clock.advance(timedelta(minutes=1))
        uses.record_use(key(1), clock.epoch(), "second")
        return await write(store, last)

    with monkeypatch.context() as patched:
        patched.setattr(GrantStore, "write_last_uses", slow_write)
        await uses.flush()
    await uses.flush()
    assert await written(other) == LastUse(clock.now(), "second")


async def test_a_grant_is_written_once_a_minute_with_its_last_use(
    database_url: str, uses: LastUses, other: asyncpg.Connection, clock: ManualClock
) -> None:
    await make_grants(database_url, 1)
    began = clock.now()
    uses.record_use(key(1), clock.epoch(), "first")
    await uses.flush()
    for _ in range(59):
        clock.advance(timedelta(seconds=1))
        uses.record_use(key(1), clock.epoch(), "again")
        await uses.flush()
        assert await written(other) == LastUse(began, "first")
    last = clock.now()
    clock.advance(timedelta(seconds=1))
    await uses.flush()
    assert await written(other) == LastUse(last, "again")


async def test_the_last_flush_has_a_timeout(
    database_url: str,
    uses: LastUses,
    other: asyncpg.Connection,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The table is locked during the whole flush, of which one statement may take 5 s."""
    await make_grants(database_url, 1)
    monkeypatch.setattr(last_uses, "_LAST_FLUSH_SECONDS", 0.2)
    uses.record_use(key(1), clock.epoch(), "calendar-sync")
    async with other.transaction():
        await other.execute("LOCK TABLE grants")
        await uses.flush_last()
    events = [vars(record).get("event") for record in caplog.records]
    assert "last_uses_not_written" in events
    await uses.flush()
    assert await written(other) == LastUse(clock.now(), "calendar-sync")


async def test_an_earlier_use_never_replaces_a_later_one(
    database_url: str, uses: LastUses, other: asyncpg.Connection, clock: ManualClock
) -> None:
    await make_grants(database_url, 1)
    later = datetime(2026, 6, 1, tzinfo=UTC)
    await other.execute("UPDATE grants SET last_used_at = $1, last_used_by = 'other'", later)
    uses.record_use(key(1), clock.epoch(), "late")
    await uses.flush()
    assert await written(other) == LastUse(later, "other")
    assert uses.due == 0
