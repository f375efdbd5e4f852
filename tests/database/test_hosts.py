"""An address with several hosts: one that hangs keeps nobody from the one that took its place."""

import asyncio

import asyncpg
import pytest

from broker.database.database import Database, StorageUnavailable
from broker.database.driver import connect
from broker.database.hosts import Hosts
from broker.secret import Secret
from devstack.postgres import EmbeddedPostgres
from tests.support.lossy_link import lossy_link


def _either(one: str, other: str) -> Secret:
    """The first's address, with the host of the other beside its own."""
    host, _, database = one.rpartition("@")[2].partition("/")
    second = other.rpartition("@")[2].partition("/")[0]
    user = one.rpartition("@")[0]
    return Secret(f"{user}@{host},{second}/{database}?target_session_attrs=read-write")


async def _until_up(database: Database, within: float) -> None:
    async with asyncio.timeout(within):
        while True:
            try:
                await database.read("SELECT 1")
            except StorageUnavailable:
                await asyncio.sleep(0.05)
            else:
                return


async def test_the_other_host_is_found_while_the_first_hangs(database_url: str) -> None:
    async with lossy_link(database_url) as (first, one), lossy_link(database_url) as (_, other):
        database = Database(_either(one, other))
        await database.open()
        first.stop_carrying()
        await _until_up(database, within=20)
        # From now on it is the first that is asked.
        asked_before = first.connections
        for _ in range(5):
            async with database.own_connection():
                pass
            await database.ping()
        assert first.connections == asked_before
        await database.close()


async def test_a_host_that_hangs_from_the_start_is_passed_over(database_url: str) -> None:
    async with lossy_link(database_url) as (first, one), lossy_link(database_url) as (_, other):
        first.stop_carrying()
        database = Database(_either(one, other))
        async with asyncio.timeout(20):
            await database.open()
            await database.ping()
        await database.close()


async def test_a_standby_that_answers_does_not_hide_that_the_primary_hangs(
    database_url: str, postgres: EmbeddedPostgres, database_name: str
) -> None:
    async with lossy_link(database_url) as (first, one), lossy_link(database_url) as (_, other):
        database = Database(_either(one, other))
        await database.open()
        first.stop_carrying()
        only_reads = f'ALTER DATABASE "{database_name}" SET default_transaction_read_only = on'
        await asyncio.to_thread(postgres.execute, only_reads)
        with pytest.raises(StorageUnavailable):
            await database.read("SELECT 1")
        for _ in range(5):
            # It is told before it waits for anything whatever.
            with pytest.raises(StorageUnavailable, match="no answer"):
                database.ping().send(None)
        await database.close()


async def test_without_any_that_answers_the_database_is_away(database_url: str) -> None:
    async with lossy_link(database_url) as (_, one), lossy_link(database_url) as (_, other):
        pass
    database = Database(_either(one, other))
    with pytest.raises(StorageUnavailable):
        await database.open()
    await database.close()


async def test_the_connection_found_is_not_left_open_by_who_is_cancelled_meanwhile(
    database_url: str,
) -> None:
    made: list[asyncpg.Connection] = []
    given_up = asyncio.Event()

    async def way(url: str) -> asyncpg.Connection:
        if url.endswith("first/?target_session_attrs=primary"):
            try:
                await asyncio.Event().wait()
            finally:
                given_up.set()
                await asyncio.sleep(0)
        made.append(await connect(database_url))
        return made[0]

    hosts = Hosts(
        Secret("postgresql://first,second/?target_session_attrs=primary"), on_moved=lambda: None
    )
    connecting = asyncio.create_task(hosts.connect(way, within=60))
    await given_up.wait()
    connecting.cancel()
    try:
        connection = await connecting
    except asyncio.CancelledError:
        assert made[0].is_closed()
    else:
        await connection.close()
