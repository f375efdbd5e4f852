"""Connections are lent again without a reset, and closed unless their use ended cleanly."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from broker.database.database import Database, StorageUnavailable
from broker.database.driver import connect
from broker.database.pool import ConnectionPool, PooledConnection, PoolExhaustedError
from broker.database.shares import Share, use_share
from broker.secret import Secret

_PID = "SELECT pg_backend_pid()"


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(Secret(database_url), max_connections=2)
    await database.open()
    yield database
    await database.close()


@pytest.fixture
async def observer(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


async def _ends(observer: asyncpg.Connection, pid: int) -> None:
    """Return once the server's process has ended."""
    await _until(observer, "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1)", pid)


async def _until(observer: asyncpg.Connection, query: str, pid: int) -> None:
    async with asyncio.timeout(5):
        while not await observer.fetchval(query, pid):  # noqa: ASYNC110  (it sends no event)
            await asyncio.sleep(0.01)


async def test_a_connection_is_lent_again_without_another_query(
    database: Database, observer: asyncpg.Connection
) -> None:
    pid = await database.fetchval(_PID)
    assert await database.fetchval(_PID) == pid
    last = await observer.fetchval("SELECT query FROM pg_stat_activity WHERE pid = $1", pid)
    assert last == _PID


async def test_after_a_failed_statement_a_connection_is_lent_again(database: Database) -> None:
    pid = await database.fetchval(_PID)
    with pytest.raises(asyncpg.DivisionByZeroError):
        await database.execute("SELECT 1/0")
    assert await database.fetchval(_PID) == pid


async def test_a_connection_in_an_open_transaction_is_closed(
    database: Database, observer: asyncpg.Connection
) -> None:
    async with database.connection() as connection:
        pid = await connection.fetchval(_PID)
        await connection.execute("BEGIN; SELECT pg_advisory_xact_lock(1)")
    assert await database.fetchval(_PID) != pid
    await _ends(observer, pid)


async def test_a_connection_in_a_failed_transaction_is_closed(
    database: Database, observer: asyncpg.Connection
) -> None:
    pid = await database.fetchval(_PID)
    async with database.connection() as connection:
        await connection.execute("BEGIN")
        with pytest.raises(asyncpg.DivisionByZeroError):
            await connection.execute("SELECT 1/0")
    assert await database.fetchval(_PID) != pid
    await _ends(observer, pid)


async def test_a_connection_whose_query_was_cancelled_is_closed(
    database: Database, observer: asyncpg.Connection
) -> None:
    pid = await database.fetchval(_PID)
    sleeping = asyncio.create_task(database.execute("SELECT pg_sleep(60)"))
    sleeps = "SELECT query ~ 'pg_sleep' FROM pg_stat_activity WHERE pid = $1"
    await _until(observer, sleeps, pid)
    sleeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sleeping
    assert await database.fetchval(_PID) != pid
    await _ends(observer, pid)


async def test_a_cancelled_transaction_is_rolled_back_and_releases_its_locks(
    database: Database, observer: asyncpg.Connection
) -> None:
    has_lock = asyncio.Event()

    async def hold() -> None:
        async with database.transaction() as connection:
            await connection.execute("SELECT pg_advisory_xact_lock(1)")
            has_lock.set()
            await connection.execute("SELECT pg_sleep(60)")

    holder = asyncio.create_task(hold())
    await has_lock.wait()
    holder.cancel()
    with pytest.raises(asyncio.CancelledError):
        await holder
    async with asyncio.timeout(30):
        await observer.execute("SELECT pg_advisory_lock(1)")


async def test_the_pool_never_exceeds_its_size_and_serves_every_call(
    database: Database,
) -> None:
    asked = [database.fetchval("SELECT pg_backend_pid() FROM pg_sleep(0.01)") for _ in range(20)]
    assert len(set(await asyncio.gather(*asked))) == 2


async def test_a_cancelled_call_holds_no_connection(database: Database) -> None:
    async with database.connection(), database.connection():
        waiting = [asyncio.create_task(database.ping()) for _ in range(3)]
        await asyncio.sleep(0)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
    async with database.connection(), database.connection():
        pass


async def test_idle_connections_are_closed_except_the_last(
    database: Database, observer: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with database.connection() as first, database.connection() as second:
        one, other = await first.fetchval(_PID), await second.fetchval(_PID)
    monkeypatch.setattr("broker.database.pool._IDLE_SECONDS", -1.0)
    kept = await database.fetchval(_PID)
    assert kept in {one, other}
    await _ends(observer, one + other - kept)


async def test_a_connection_is_closed_after_its_lifetime(
    database_url: str, observer: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.database.pool._LIFE_SECONDS", -1.0)
    database = Database(Secret(database_url))
    await database.open()
    pid = await database.fetchval(_PID)
    assert await database.fetchval(_PID) != pid
    await _ends(observer, pid)
    await database.close()


class Servers:
    """Two servers to connect to: the database, and one that never answers."""

    def __init__(self, database_url: str, silent_url: str) -> None:
        self.database_url = database_url
        self.silent_url = silent_url
        self.is_silent = False

    async def connect(self) -> PooledConnection:
        url = self.silent_url if self.is_silent else self.database_url
        return await connect(url, connection_class=PooledConnection)


@pytest.fixture
async def servers(database_url: str) -> AsyncIterator[Servers]:
    async def stay_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(stay_silent, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        yield Servers(database_url, f"postgresql://broker@127.0.0.1:{port}/broker?sslmode=disable")


@pytest.mark.parametrize(
    ("timeout_seconds", "waited", "outcome"),
    [(1.0, 0.9, PoolExhaustedError), (4.0, 0.0, TimeoutError)],
)
async def test_a_timeout_of_the_server_counts_only_if_the_server_had_half_of_the_time(
    servers: Servers, timeout_seconds: float, waited: float, outcome: type[Exception]
) -> None:
    pool = ConnectionPool(servers.connect, size=1, timeout_seconds=timeout_seconds)
    held = await pool.acquire()
    servers.is_silent = True
    waiting = asyncio.create_task(pool.acquire())
    await asyncio.sleep(waited)
    pool.release(held, is_clean=False)
    with pytest.raises(outcome):
        await waiting
    servers.is_silent = False
    pool.release(await pool.acquire(), is_clean=True)
    await pool.close(within=1)


async def test_the_user_of_a_broken_connection_gets_storage_unavailable(
    database: Database,
) -> None:
    async def use_both() -> None:
        async with database.transaction() as busy, database.transaction() as idle:
            asking = asyncio.create_task(busy.execute("SELECT pg_sleep(60)"))
            await idle.execute("SELECT 1")
            database.drop_connections()
            with pytest.raises(asyncpg.PostgresConnectionError):
                await asking
            await idle.execute("SELECT 1")

    with pytest.raises(StorageUnavailable):
        await use_both()
    assert await database.fetchval("SELECT 1") == 1


async def test_a_connection_broken_between_two_steps_of_the_driver_raises_storage_unavailable(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare = PooledConnection._get_statement  # type: ignore[attr-defined]

    async def prepare_and_be_cut(*arguments: object, **options: object) -> object:
        prepared = await prepare(*arguments, **options)
        database.drop_connections()
        return prepared

    monkeypatch.setattr(PooledConnection, "_get_statement", prepare_and_be_cut)
    with pytest.raises(StorageUnavailable):
        await database.fetchval("SELECT $1::int", 1)


async def test_connections_and_waiting_calls_are_counted(database: Database) -> None:
    pool = database.pool
    assert (pool.size, pool.in_use, pool.idle) == (2, 0, 1)
    async with database.connection(), database.connection():
        assert (pool.in_use, pool.idle) == (2, 0)
        waiting = asyncio.create_task(database.fetchval("SELECT 1"))
        await asyncio.sleep(0)
        assert (pool.waiting_for_pool, pool.waiting_for_share) == (1, 0)
    await waiting
    assert (pool.in_use, pool.idle, pool.waiting_for_pool) == (0, 2, 0)


async def test_calls_that_wait_for_their_share_are_counted_separately(database: Database) -> None:
    use_share(Share("one at a time", 1))
    async with database.connection():
        waiting = asyncio.create_task(database.fetchval("SELECT 1"))
        await asyncio.sleep(0)
        assert (database.pool.waiting_for_pool, database.pool.waiting_for_share) == (0, 1)
    await waiting
    assert database.pool.waiting_for_share == 0
