"""Nothing waits for ever: what PostgreSQL and the sockets are told, on each kind of connection."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from broker.database import driver
from broker.database.database import Database, StorageBusy, StorageUnavailable
from broker.secret import Secret
from devstack.postgres import EmbeddedPostgres
from tests.chaos.pgbouncer import BINARY, transaction_pooler
from tests.support.lossy_link import lossy_link
from tests.support.optional_parts import skip_without
from tests.support.waiting import eventually

SETTINGS = """
SELECT name, setting FROM pg_settings WHERE name IN (
    'lock_timeout', 'idle_in_transaction_session_timeout', 'statement_timeout',
    'tcp_keepalives_idle', 'tcp_keepalives_interval', 'tcp_keepalives_count', 'tcp_user_timeout')
"""
IN_TRANSACTION = {
    "lock_timeout": "2000",
    "idle_in_transaction_session_timeout": "5000",
    "statement_timeout": "6000",
}
OF_SESSION = IN_TRANSACTION | {
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "10000",
}
LOCK = "SELECT pg_advisory_xact_lock(4711)"


@asynccontextmanager
async def _opened(url: str) -> AsyncIterator[Database]:
    database = Database(Secret(url))
    await database.open()
    try:
        yield database
    finally:
        await database.close()


async def _settings(connection: asyncpg.Connection | Database) -> Mapping[str, str]:
    return {row["name"]: row["setting"] for row in await connection.fetch(SETTINGS)}


@pytest.fixture
def pooled_url(tmp_path: Path, postgres: EmbeddedPostgres, database_name: str) -> Iterator[str]:
    """The address of a test's database through a pooler with one connection for all."""
    if BINARY is None:
        skip_without("PgBouncer is not installed")
    with transaction_pooler(postgres, tmp_path, size=1) as port:
        yield postgres.url(database_name).replace(f":{postgres.port}/", f":{port}/")


# ---- directly


async def test_a_connection_of_the_pool_waits_for_nothing_without_end(database_url: str) -> None:
    async with _opened(database_url) as database:
        assert await _settings(database) == OF_SESSION


async def test_a_transaction_waits_for_nothing_without_end(database_url: str) -> None:
    async with _opened(database_url) as database, database.transaction() as connection:
        assert await _settings(connection) == OF_SESSION


async def test_the_listening_connection_waits_for_nothing_without_end(database_url: str) -> None:
    async with _opened(database_url) as database, database.own_connection() as connection:
        assert await _settings(connection) == OF_SESSION


async def test_who_reads_for_an_hour_may_pause_but_no_transaction_of_ours_may(
    database_url: str,
) -> None:
    database = Database(Secret(database_url), command_seconds=3600)
    await database.open()
    async with database.connection() as connection:
        settings = await _settings(connection)
    assert settings["idle_in_transaction_session_timeout"] == "3600000"
    assert settings["statement_timeout"] == "3601000"
    async with database.transaction() as connection:
        settings = await _settings(connection)
    assert settings["idle_in_transaction_session_timeout"] == "5000"
    await database.close()


# ---- through a pooler


async def test_a_transaction_through_a_pooler_is_bounded_and_leaves_nothing_behind(
    pooled_url: str,
) -> None:
    pooler = await asyncpg.connect(pooled_url, statement_cache_size=0)
    before = await _settings(pooler)
    async with _opened(pooled_url) as database:
        async with database.transaction() as connection:
            assert (await _settings(connection)).items() >= IN_TRANSACTION.items()
        async with database.transaction(isolation="read_committed") as connection:
            assert (await _settings(connection)).items() >= IN_TRANSACTION.items()
        # Of one statement, too.
        assert (await _settings(database)).items() >= IN_TRANSACTION.items()
        async with database.own_connection() as connection:
            await connection.execute("SELECT 1")
    # There is one connection behind the pooler: the one that was used.
    assert await _settings(pooler) == before
    await pooler.close()


async def test_a_lock_is_not_waited_for_long_through_a_pooler_either(
    pooled_url: str, database_url: str
) -> None:
    async with _opened(pooled_url) as database, _opened(database_url) as other:
        async with other.transaction() as connection:
            await connection.execute(LOCK)
            with pytest.raises(StorageBusy, match="LockNotAvailable"):
                await database.execute(LOCK)
        await database.execute(LOCK)


# ---- the other machine is lost


async def _is_free(database: Database) -> bool:
    try:
        async with database.transaction() as connection:
            await connection.execute(LOCK)
    except StorageBusy:
        return False
    return True


@pytest.mark.parametrize("is_pooled", [False, True], ids=["direct", "pooled"])
async def test_who_is_lost_within_a_transaction_lets_go_of_its_locks(
    database_url: str, is_pooled: bool, request: pytest.FixtureRequest
) -> None:
    address = request.getfixturevalue("pooled_url") if is_pooled else database_url
    async with (
        lossy_link(address) as (link, lossy),
        _opened(lossy) as lost,
        _opened(database_url) as other,
    ):

        async def lose() -> None:
            async with lost.transaction() as connection:
                await connection.execute(LOCK)
                link.stop_carrying()
                # Nothing of it reaches the server any more, the end of its connection included.
                await connection.execute("SELECT 1")

        with pytest.raises(StorageUnavailable):
            await lose()
        await eventually(lambda: _is_free(other), seconds=60)


@pytest.mark.parametrize("is_pooled", [False, True], ids=["direct", "pooled"])
async def test_who_is_lost_within_a_statement_lets_go_of_its_locks(
    database_url: str, is_pooled: bool, request: pytest.FixtureRequest
) -> None:
    """What is to be executed has reached the server, that it is to be executed has not: the server
    goes on reading, for which it has neither `idle_in_transaction_session_timeout` nor, while it
    reads, `statement_timeout`.
    """
    address = request.getfixturevalue("pooled_url") if is_pooled else database_url
    async with (
        lossy_link(address) as (link, lossy),
        _opened(lossy) as lost,
        _opened(database_url) as other,
    ):

        async def lose() -> None:
            async with lost.transaction() as connection:
                await connection.execute(LOCK)
                link.stop_carrying_after(b"SELECT 'half'")
                await connection.fetchval("SELECT 'half'")

        with pytest.raises(StorageUnavailable):
            await lose()
        await eventually(lambda: _is_free(other), seconds=60)


async def test_a_transaction_with_an_end_ends_then_whatever_it_does(database_url: str) -> None:
    async with _opened(database_url) as database:
        with pytest.raises(StorageUnavailable, match="no answer in time"):
            async with database.transaction(within=0.5) as connection:
                await connection.execute("SELECT pg_sleep(4)")
        await database.ping()


async def test_our_machine_notices_by_itself_that_the_other_one_is_lost(database_url: str) -> None:
    async with _opened(database_url) as database:
        for opened in (database.connection(), database.own_connection()):
            async with opened as connection:
                _assert_is_watched(connection)
    connection = await driver.connect(database_url)
    _assert_is_watched(connection)
    await connection.close()


def _assert_is_watched(connection: Any) -> None:
    sock = connection._transport.get_extra_info("socket")
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 5
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 10_000


async def test_a_socket_of_this_machine_needs_none_of_it(
    postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    """A server's own folder of sockets stands for any: it only has to be one that is no TCP."""
    path = tmp_path / ".s.PGSQL.5432"

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection("127.0.0.1", postgres.port)
        await asyncio.gather(_carry(reader, to_server), _carry(from_server, writer))

    async with await asyncio.start_unix_server(relay, path):
        connection = await driver.connect(
            postgres.url("postgres"), host=str(tmp_path), port=5432, ssl=False
        )
        assert await connection.fetchval("SELECT 1") == 1
        await connection.close()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
    writer.close()
