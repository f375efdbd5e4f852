"""An address with several hosts: one that hangs does not hide its successor."""

import asyncio

import asyncpg
import pytest

from broker.database.connector import Hosts, split_hosts
from broker.database.database import Database, StorageUnavailable
from broker.database.driver import connect
from broker.secret import Secret
from devstack.postgres import EmbeddedPostgres
from tests.support.lossy_link import lossy_link


def _either(one: str, other: str) -> Secret:
    """The address of the first, with the host of the other added."""
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
        first.cut()
        await _until_up(database, within=20)
        # From now on this host is tried first.
        asked_before = first.connections
        for _ in range(5):
            async with database.dedicated_connection():
                pass
            await database.ping()
        assert first.connections == asked_before
        await database.close()


async def test_a_host_that_hangs_from_the_start_is_skipped(database_url: str) -> None:
    async with lossy_link(database_url) as (first, one), lossy_link(database_url) as (_, other):
        first.cut()
        database = Database(_either(one, other))
        async with asyncio.timeout(20):
            await database.open()
            await database.ping()
        await database.close()


async def test_a_responding_standby_does_not_hide_that_the_primary_hangs(
    database_url: str, postgres: EmbeddedPostgres, database_name: str
) -> None:
    async with lossy_link(database_url) as (first, one), lossy_link(database_url) as (_, other):
        database = Database(_either(one, other))
        await database.open()
        first.cut()
        only_reads = f'ALTER DATABASE "{database_name}" SET default_transaction_read_only = on'
        await asyncio.to_thread(postgres.execute, only_reads)
        with pytest.raises(StorageUnavailable):
            await database.read("SELECT 1")
        for _ in range(5):
            # It fails before its first await.
            with pytest.raises(StorageUnavailable, match="no answer"):
                database.ping().send(None)
        await database.close()


async def test_without_a_responding_host_the_database_is_unavailable(database_url: str) -> None:
    async with lossy_link(database_url) as (_, one), lossy_link(database_url) as (_, other):
        pass
    database = Database(_either(one, other))
    with pytest.raises(StorageUnavailable):
        await database.open()
    await database.close()


async def test_a_cancelled_call_does_not_leave_the_connection_open(
    database_url: str,
) -> None:
    made: list[asyncpg.Connection] = []
    given_up = asyncio.Event()

    async def open_connection(url: str) -> asyncpg.Connection:
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
    connecting = asyncio.create_task(hosts.connect(open_connection, within=60))
    await given_up.wait()
    connecting.cancel()
    try:
        connection = await connecting
    except asyncio.CancelledError:
        assert made[0].is_closed()
    else:
        await connection.close()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://u:p@a/db", ["postgresql://u:p@a/db"]),
        ("postgresql://u:p@a,b/db", ["postgresql://u:p@a,b/db"]),
        (
            "postgresql://u:p@a:1,b:2/db?target_session_attrs=primary",
            [
                "postgresql://u:p@a:1/db?target_session_attrs=primary",
                "postgresql://u:p@b:2/db?target_session_attrs=primary",
            ],
        ),
        (
            "postgresql://a,b/db?target_session_attrs=read-write&sslmode=require",
            [
                "postgresql://a/db?target_session_attrs=read-write&sslmode=require",
                "postgresql://b/db?target_session_attrs=read-write&sslmode=require",
            ],
        ),
        (
            "postgresql://a,b/db?target_session_attrs=any",
            ["postgresql://a,b/db?target_session_attrs=any"],
        ),
        (
            "postgresql:///db?host=a,b&target_session_attrs=primary",
            ["postgresql:///db?host=a,b&target_session_attrs=primary"],
        ),
        ("postgresql://[::1/db", ["postgresql://[::1/db"]),
    ],
    ids=[
        "one host",
        "any of two",
        "the primary",
        "a writable one",
        "any by option",
        "hosts in an option",
        "not an address",
    ],
)
def test_only_an_address_with_one_writable_host_is_split(url: str, expected: list[str]) -> None:
    assert [each.reveal() for each in split_hosts(Secret(url))] == expected
