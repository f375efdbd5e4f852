"""Every wait is bounded: the time-outs of PostgreSQL and of the sockets, per kind of connection."""

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
from broker.database.timeouts import Isolation, Timeouts
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
    """The address of a test's database behind a pooler with a single connection."""
    if BINARY is None:
        skip_without("PgBouncer is not installed")
    with transaction_pooler(postgres, tmp_path, size=1) as port:
        yield postgres.url(database_name).replace(f":{postgres.port}/", f":{port}/")


# ---- without a pooler


async def test_a_pooled_connection_has_all_timeouts(database_url: str) -> None:
    async with _opened(database_url) as database:
        assert await _settings(database) == OF_SESSION


async def test_a_transaction_has_all_timeouts(database_url: str) -> None:
    async with _opened(database_url) as database, database.transaction() as connection:
        assert await _settings(connection) == OF_SESSION


async def test_a_dedicated_connection_has_all_timeouts(database_url: str) -> None:
    async with _opened(database_url) as database, database.dedicated_connection() as connection:
        assert await _settings(connection) == OF_SESSION


async def test_a_long_read_may_pause_but_no_transaction_may(
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


# ---- behind a pooler


async def test_a_transaction_behind_a_pooler_has_timeouts_and_leaves_no_settings(
    pooled_url: str,
) -> None:
    pooler = await asyncpg.connect(pooled_url, statement_cache_size=0)
    before = await _settings(pooler)
    async with _opened(pooled_url) as database:
        async with database.transaction() as connection:
            assert (await _settings(connection)).items() >= IN_TRANSACTION.items()
        async with database.transaction(isolation="read_committed") as connection:
            assert (await _settings(connection)).items() >= IN_TRANSACTION.items()
        # A single statement too.
        assert (await _settings(database)).items() >= IN_TRANSACTION.items()
        async with database.dedicated_connection() as connection:
            await connection.execute("SELECT 1")
    # The pooler has a single connection: the one that was used.
    assert await _settings(pooler) == before
    await pooler.close()


async def test_the_lock_timeout_applies_behind_a_pooler(pooled_url: str, database_url: str) -> None:
    async with _opened(pooled_url) as database, _opened(database_url) as other:
        async with other.transaction() as connection:
            await connection.execute(LOCK)
            with pytest.raises(StorageBusy, match="LockNotAvailable"):
                await database.execute(LOCK)
        await database.execute(LOCK)


# ---- a machine is lost


async def _is_free(database: Database) -> bool:
    try:
        async with database.transaction() as connection:
            await connection.execute(LOCK)
    except StorageBusy:
        return False
    return True


@pytest.mark.parametrize("is_pooled", [False, True], ids=["direct", "pooled"])
async def test_locks_of_a_client_lost_within_a_transaction_are_released(
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
                link.cut()
                # Nothing reaches the server any more, not even the end of the connection.
                await connection.execute("SELECT 1")

        with pytest.raises(StorageUnavailable):
            await lose()
        await eventually(lambda: _is_free(other), seconds=60)


@pytest.mark.parametrize("is_pooled", [False, True], ids=["direct", "pooled"])
async def test_locks_of_a_client_lost_within_a_statement_are_released(
    database_url: str, is_pooled: bool, request: pytest.FixtureRequest
) -> None:
    """The statement has reached the server, the message that executes it has not: the server keeps
    reading, which neither `idle_in_transaction_session_timeout` nor `statement_timeout` bounds.
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
                link.cut_after(b"SELECT 'half'")
                await connection.fetchval("SELECT 'half'")

        with pytest.raises(StorageUnavailable):
            await lose()
        await eventually(lambda: _is_free(other), seconds=60)


async def test_a_transaction_ends_after_its_timeout(database_url: str) -> None:
    async with _opened(database_url) as database:
        with pytest.raises(StorageUnavailable, match="no answer in time"):
            async with database.transaction(within=0.5) as connection:
                await connection.execute("SELECT pg_sleep(4)")
        await database.ping()


async def test_every_connection_has_tcp_keepalive(database_url: str) -> None:
    async with _opened(database_url) as database:
        for opened in (database.connection(), database.dedicated_connection()):
            async with opened as connection:
                _assert_keepalive(connection)
    connection = await driver.connect(database_url)
    _assert_keepalive(connection)
    await connection.close()


def _assert_keepalive(connection: Any) -> None:
    sock = connection._transport.get_extra_info("socket")
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 5
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 10_000


async def test_a_unix_socket_needs_no_keepalive(postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    """A relay stands for the server's own socket: it only has to be a socket without TCP."""
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


# ---- the statement that begins a transaction

_BOUNDS = (
    "SET LOCAL lock_timeout = 2000; SET LOCAL idle_in_transaction_session_timeout = 5000; "
    "SET LOCAL statement_timeout = 6000"
)


@pytest.mark.parametrize(
    ("isolation", "version", "expected"),
    [
        (None, 16, f"BEGIN; {_BOUNDS}"),
        (None, 17, f"BEGIN; {_BOUNDS}; SET LOCAL transaction_timeout = 10000"),
        ("read_committed", 16, f"BEGIN ISOLATION LEVEL READ COMMITTED; {_BOUNDS}"),
    ],
)
def test_beginning_sets_all_timeouts_that_the_server_supports(
    isolation: Isolation | None, version: int, expected: str
) -> None:
    server = asyncpg.types.ServerVersion(version, 0, 0, "final", 0)
    assert Timeouts(5.0).begin(isolation, within=8.0, server=server) == expected
