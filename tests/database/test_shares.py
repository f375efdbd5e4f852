"""The shares of what a replica has little of add up to less than there is, and are kept to."""

import asyncio
import random
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager, suppress

import pytest

from broker.callers import limits
from broker.consent import exchange
from broker.database import shares
from broker.database.database import Database, StorageBusy, StorageUnavailable
from broker.database.shares import BACKGROUND, Linearizer, use_share, use_share_of_caller
from broker.grants_api import revoker
from broker.outbound import client
from broker.secret import Secret
from broker.tokens.cache import proactive_refresh as ahead
from broker.tokens.refresh import refresher
from tests.support.waiting import eventually

CONNECTIONS = {
    "a caller": shares.OF_A_CALLER,
    "an address": shares.OF_AN_ADDRESS,
    "security events": shares.OF_SECURITY_EVENTS,
    "background work": shares.OF_BACKGROUND_WORK,
    "proactive refreshes": shares.OF_PROACTIVE_REFRESHES,
    "monitoring": shares.OF_MONITORING,
}

REFRESHES = {
    "a caller's single requests": limits.REFRESHES_AT_ONCE,
    "its batches": limits.BATCH_REFRESHES_AT_ONCE,
    "proactive refreshes": ahead.AT_ONCE,
}

CALLS_TO_GOOGLE = {
    "refreshes": refresher.AT_ONCE,
    "code exchanges": exchange.AT_ONCE,
    "revocations": revoker.AT_ONCE,
    # One at a time each: discovery, two key sets, their configuration, and issuers' documents.
    "documents": 10,
}

EXCHANGES = {"an address": exchange.OF_AN_ADDRESS_AT_ONCE}


def leaves_room(sizes: Mapping[str, int], *, of: int, room_for: int) -> bool:
    """Whether all of them at once leave so much of the resource."""
    return sum(sizes.values()) + room_for <= of and sum(sizes.values()) < of


def test_connections_to_postgresql_suffice_for_all_shares_and_another_caller() -> None:
    assert leaves_room(CONNECTIONS, of=shares.POOL_SIZE, room_for=shares.OF_A_CALLER)


def test_refreshes_suffice_for_all_shares_and_another_caller() -> None:
    another = limits.REFRESHES_AT_ONCE + limits.BATCH_REFRESHES_AT_ONCE
    assert leaves_room(REFRESHES, of=refresher.AT_ONCE, room_for=another)


def test_code_exchanges_suffice_for_an_address_and_another() -> None:
    assert leaves_room(EXCHANGES, of=exchange.AT_ONCE, room_for=exchange.OF_AN_ADDRESS_AT_ONCE)


def test_connections_to_google_suffice_for_all_that_are_used_at_once() -> None:
    assert sum(CALLS_TO_GOOGLE.values()) < client.MOST_CONNECTIONS


def test_one_user_or_grant_has_less_than_its_caller() -> None:
    assert limits.READS_OF_A_USER_AT_ONCE < limits.READS_AT_ONCE <= shares.OF_A_CALLER
    assert limits.REFRESHES_OF_A_GRANT_AT_ONCE < limits.REFRESHES_AT_ONCE
    assert limits.REFRESHES_OF_A_GRANT_AT_ONCE < limits.BATCH_REFRESHES_AT_ONCE


def test_three_replicas_fit_into_postgresql_as_it_comes() -> None:
    """Its `max_connections` is 100, of which three are for superusers; each replica has a listener
    besides, and may ask whether the server answers at all.
    """
    assert 3 * (shares.POOL_SIZE + 2) <= 97


def test_the_sums_of_the_release_before_would_not_do() -> None:
    assert not leaves_room({"a caller": 16}, of=10, room_for=16)
    assert not leaves_room(
        {"a caller's single requests": 48, "batches": 50, "proactive refreshes": 16},
        of=64,
        room_for=48,
    )


@contextmanager
def _as_caller(name: str) -> Iterator[None]:
    use_share_of_caller(name)
    try:
        yield
    finally:
        use_share(BACKGROUND)


async def test_a_caller_gets_no_more_connections_than_its_share(database_url: str) -> None:
    database = Database(Secret(database_url), connect_seconds=1)
    await database.open()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(database.close)
        with _as_caller("loud"):
            for _ in range(shares.OF_A_CALLER):
                await stack.enter_async_context(database.connection())
            with pytest.raises(StorageBusy):
                await database.ping()
            assert not database.is_doubtful
        with _as_caller("another"):
            for _ in range(shares.OF_A_CALLER):
                await stack.enter_async_context(database.connection())
        await database.ping()
    assert not database.was_away_within(60)


async def test_a_connection_that_comes_back_is_for_who_has_waited_longest(
    database_url: str,
) -> None:
    database = Database(Secret(database_url))
    await database.open()
    with _as_caller("loud"):
        async with AsyncExitStack() as stack:
            for _ in range(shares.OF_A_CALLER):
                await stack.enter_async_context(database.connection())
            waiting = [asyncio.create_task(database.ping()) for _ in range(20)]
            await asyncio.sleep(0)
            given_up, *others = waiting
            given_up.cancel()
        await asyncio.gather(*others)
    assert given_up.cancelled()
    with _as_caller("loud"):
        # None of them was lost with the one who gave up.
        async with AsyncExitStack() as stack:
            for _ in range(shares.OF_A_CALLER):
                await stack.enter_async_context(database.connection())
    await database.close()


async def test_who_waits_for_another_s_lock_has_no_connection(database_url: str) -> None:
    database = Database(Secret(database_url), connect_seconds=0.2)
    await database.open()
    async with database.exclusively("user ada", "account 1"):
        with pytest.raises(StorageBusy):
            async with database.exclusively("account 2", "user ada"):
                raise AssertionError("two at a time")
        # Whoever waited in vain keeps nothing.
        async with database.exclusively("account 2"):
            pass
    async with database.exclusively("account 1", "user ada"):
        pass
    await database.close()


async def test_who_has_used_up_its_share_keeps_nobody_else_from_the_same_user(
    database_url: str,
) -> None:
    database = Database(Secret(database_url), connect_seconds=30)
    await database.open()

    async def withdraw(name: str) -> None:
        use_share_of_caller(name)
        async with database.exclusively("user ada"), database.transaction() as connection:
            await connection.execute("SELECT 1")

    async with AsyncExitStack() as stack:
        with _as_caller("loud"):
            for _ in range(shares.OF_A_CALLER):
                await stack.enter_async_context(database.connection())
        loud = asyncio.create_task(withdraw("loud"))
        await eventually(lambda: _waits_for_its_share(database, "loud"))
        # Would take half a minute, and fail.
        await asyncio.create_task(withdraw("another"))
        assert not loud.done()
    await loud
    await database.close()


async def _waits_for_its_share(database: Database, caller: str) -> bool:
    return database._pool._shares.waiting(f"caller {caller}") > 0


@pytest.mark.parametrize("patience", [None, 0.2], ids=["without", "with a replica"])
async def test_waiting_for_one_s_own_share_says_nothing_of_the_server(
    database_url: str, patience: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.database.database.DOUBT_SECONDS", 0.0)
    database = Database(Secret(database_url), connect_seconds=1)
    await database.open()
    suspected: list[None] = []
    monkeypatch.setattr(database._silence, "suspect", lambda: suspected.append(None))
    async with AsyncExitStack() as stack:
        with _as_caller("loud"):
            for _ in range(shares.OF_A_CALLER):
                await stack.enter_async_context(database.connection())
            with pytest.raises(StorageBusy):
                await database.read("SELECT 1", patience_seconds=patience)
    assert not suspected
    assert not database.was_away_within(60)
    await database.close()


async def test_turns_for_several_things_at_once_never_wait_for_each_other() -> None:
    linearizer = Linearizer(patience_seconds=30)
    order = []

    async def take(name: str, *keys: str) -> None:
        acquired = await linearizer.acquire(keys)
        await asyncio.sleep(0)
        order.append(name)
        linearizer.release(acquired)

    async with asyncio.timeout(10):
        await asyncio.gather(
            take("first", "a", "b"), take("second", "b", "a"), take("third", "b", "b")
        )
    assert sorted(order) == ["first", "second", "third"]


async def test_however_their_use_ends_all_connections_are_there_again(database_url: str) -> None:
    database = Database(Secret(database_url), max_connections=8)
    await database.open()
    chance = random.Random(1)

    async def use(number: int) -> None:
        use_share_of_caller(f"caller {number % 3}")
        with suppress(StorageUnavailable, TimeoutError):
            async with asyncio.timeout(chance.uniform(0.001, 0.4)):
                async with database.exclusively(f"user {number % 7}"):
                    await database.execute("SELECT pg_sleep($1)", chance.uniform(0, 0.05))

    tasks = [asyncio.create_task(use(number)) for number in range(600)]
    for task in chance.sample(tasks, 100):
        await asyncio.sleep(0.005)
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert not len(database._linearizer._semaphore)
    await eventually(lambda: _is_whole(database))
    await database.close()


async def _is_whole(database: Database) -> bool:
    """Whether nothing is lent any more; what was cut short is hung up on first."""
    return not len(database._pool._permits) and not len(database._pool._shares)
