"""Simultaneous requests for one user's token read the grants once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import asyncpg
import httpx2

from tests.support.waiting import eventually
from tests.support.world import World

_READS = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%FROM grants%'
"""


@asynccontextmanager
async def _reads_blocked(world: World) -> AsyncIterator[asyncpg.Connection]:
    """Lock the table of grants; yield the connection that does."""
    connection = await asyncpg.connect(world.settings.database_url.reveal())
    try:
        async with connection.transaction():
            await connection.execute("LOCK TABLE grants IN ACCESS EXCLUSIVE MODE")
            yield connection
    finally:
        await connection.close()


def _asking(world: World, count: int) -> list[asyncio.Task[httpx2.Response]]:
    return [asyncio.create_task(world.token()) for _ in range(count)]


async def _waiting(connection: asyncpg.Connection) -> int:
    """Return how many reads of a user's grants wait, without the poll for changes."""
    # Within a transaction the statistics are a snapshot.
    await connection.execute("SELECT pg_stat_clear_snapshot()")
    query = f"{_READS} AND query NOT LIKE '%changed_at%'"
    return int(await connection.fetchval(query))


async def test_simultaneous_requests_read_the_grants_once(world: World) -> None:
    await world.connect()
    world.clock.advance(timedelta(hours=1))
    before = world.refreshes_at_google()
    async with _reads_blocked(world) as connection:
        crowd = _asking(world, 60)
        await eventually(lambda: _some_wait(connection))
        await asyncio.sleep(0.2)
        assert await _waiting(connection) == 1
    answers = await asyncio.gather(*crowd)
    assert {answer.status_code for answer in answers} == {200}
    assert world.refreshes_at_google() == before + 1


async def test_another_request_reads_when_the_one_that_reads_is_cancelled(world: World) -> None:
    await world.connect()
    world.clock.advance(timedelta(hours=1))
    async with _reads_blocked(world) as connection:
        first, *others = _asking(world, 5)
        await eventually(lambda: _some_wait(connection))
        first.cancel()
    assert [answer.status_code for answer in await asyncio.gather(*others)] == [200] * 4


async def _some_wait(connection: asyncpg.Connection) -> bool:
    return await _waiting(connection) > 0
