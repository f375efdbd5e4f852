"""A PostgreSQL that hangs: hardly anybody waits for it, and it is noticed when it is back."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager

import pytest

from broker.database.database import Database, StorageUnavailable
from broker.database.failure_detector import ANSWER_SECONDS, DOUBT_SECONDS
from broker.secret import Secret
from tests.support.lossy_link import LossyLink, lossy_link

FOUND_OUT = 20 * (DOUBT_SECONDS + ANSWER_SECONDS)
"""Seconds from the first read until it is known that the server hangs, on a very slow machine."""

FOR_EVER = 2 * FOUND_OUT


@pytest.fixture
async def linked(database_url: str) -> AsyncIterator[tuple[LossyLink, Database]]:
    async with _linked(database_url) as both:
        yield both


@asynccontextmanager
async def _linked(url: str, **changes: float) -> AsyncIterator[tuple[LossyLink, Database]]:
    async with lossy_link(url) as (link, address):
        database = Database(Secret(address), max_connections=3, **changes)  # type: ignore[arg-type]
        await database.open()
        try:
            yield link, database
        finally:
            await database.close()


async def _seconds_until_refused(question: Awaitable[object]) -> float:
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(StorageUnavailable):
        await question
    return loop.time() - began


async def _hang(link: LossyLink, database: Database) -> None:
    """Return once it is known."""
    link.stop_carrying()
    await _seconds_until_refused(database.read("SELECT 1"))


async def _seconds_until_back(database: Database) -> float:
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with asyncio.timeout(FOR_EVER):
        while True:
            try:
                await database.read("SELECT 1")
            except StorageUnavailable:
                await asyncio.sleep(0.02)
            else:
                return loop.time() - began


async def test_reads_under_way_are_given_up_together(database_url: str) -> None:
    times_out = {"command_seconds": FOR_EVER, "connect_seconds": FOR_EVER}
    async with _linked(database_url, **times_out) as (link, database):
        link.stop_carrying()
        reads = [_seconds_until_refused(database.read("SELECT 1")) for _ in range(20)]
        assert max(await asyncio.gather(*reads)) < FOUND_OUT


async def test_while_it_is_known_to_hang_everybody_is_refused_at_once(
    linked: tuple[LossyLink, Database],
) -> None:
    link, database = linked
    await _hang(link, database)
    for question in (database.read, database.execute, database.fetchval):
        # It is told before it waits for anything whatever.
        with pytest.raises(StorageUnavailable):
            question("SELECT 1").send(None)
    assert database.was_away_within(5)


async def test_a_write_under_way_keeps_its_own_time_out(database_url: str) -> None:
    async with _linked(database_url, command_seconds=FOR_EVER) as (link, database):
        await asyncio.gather(*(database.ping() for _ in range(3)))
        link.stop_carrying()
        write = asyncio.create_task(database.execute("SELECT 1"))
        await asyncio.sleep(0)
        assert await _seconds_until_refused(database.read("SELECT 1")) < FOUND_OUT
        assert not write.done()
        link.carry_on()
        assert await write == "SELECT 1"


async def test_a_transaction_waits_no_longer_than_its_statement(database_url: str) -> None:
    async with _linked(database_url, command_seconds=4) as (link, database):

        async def change() -> None:
            async with database.transaction() as connection:
                link.stop_carrying()
                await connection.execute("SELECT 1")

        # Waiting for the rollback as well would take as long again.
        assert await _seconds_until_refused(change()) < 7.9


async def test_what_was_only_held_up_is_noticed_at_once(
    linked: tuple[LossyLink, Database],
) -> None:
    link, database = linked
    await _hang(link, database)
    link.carry_on()
    assert await _seconds_until_back(database) < FOUND_OUT


async def test_a_server_that_has_forgotten_everybody_is_noticed_soon(
    linked: tuple[LossyLink, Database],
) -> None:
    link, database = linked
    await _hang(link, database)
    link.carry_on_anew()
    assert await _seconds_until_back(database) < FOUND_OUT
    for _ in range(5):
        await database.ping()


async def test_a_server_that_refuses_after_it_hung_does_not_hang(
    database_url: str,
) -> None:
    async with lossy_link(database_url) as (link, address):
        database = Database(Secret(address))
        await database.open()
        await _hang(link, database)
        link.carry_on_anew()
    # The link is gone: nobody listens there.
    async with asyncio.timeout(5):
        while database.is_doubtful:  # noqa: ASYNC110  (it sends no event)
            await asyncio.sleep(0.02)
    with pytest.raises(StorageUnavailable, match=r"Refused|OSError"):
        await database.read("SELECT 1")
    await database.close()


async def test_a_slow_server_is_waited_for(linked: tuple[LossyLink, Database]) -> None:
    _, database = linked
    wait = ANSWER_SECONDS + DOUBT_SECONDS + 0.3
    assert [row["b"] for row in await database.read(f"SELECT 1 AS b FROM pg_sleep({wait})")] == [1]
    assert not database.was_away_within(60)


async def test_who_has_little_patience_is_told_sooner(
    linked: tuple[LossyLink, Database],
) -> None:
    _, database = linked
    # Somebody with more would be told after the five seconds that a statement may take.
    read = database.read("SELECT pg_sleep(60)", patience_seconds=0.1)
    assert await _seconds_until_refused(read) < 4


async def test_closing_does_not_wait_for_a_server_that_hangs(database_url: str) -> None:
    async with lossy_link(database_url) as (link, address):
        database = Database(Secret(address))
        await database.open()
        await _hang(link, database)
        async with asyncio.timeout(2.5):
            await database.close()


async def test_a_server_that_answers_others_is_not_silent(database_url: str) -> None:
    """Nobody gets in in time, as when this process is short of time; who is in is answered."""
    async with _linked(database_url, command_seconds=FOR_EVER) as (link, database):
        await asyncio.gather(*(database.ping() for _ in range(3)))
        link.stop_letting_in()
        wait = ANSWER_SECONDS + DOUBT_SECONDS + 2
        slow = asyncio.create_task(database.read(f"SELECT 1 AS b FROM pg_sleep({wait})"))
        doubted = False
        while not slow.done():
            await database.ping()
            doubted |= database.is_doubtful
            await asyncio.sleep(0.02)
        assert [row["b"] for row in await slow] == [1]
        assert doubted
        assert not database.was_away_within(60)
