"""The shares of scarce resources add up to less than the whole, and are enforced."""

import asyncio
import random
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager, suppress

import pytest

from broker.callers import limits
from broker.consent import code_exchange
from broker.database import shares
from broker.database.database import Database, StorageBusy, StorageUnavailable
from broker.database.shares import (
    BACKGROUND,
    KeyedMutex,
    KeyedSemaphore,
    use_share,
    use_share_of_caller,
)
from broker.outbound import http_client
from broker.revocations import sender as revocation_sender
from broker.secret import Secret
from broker.tokens.refresh import google_calls, proactive_refresh
from tests.support.waiting import eventually

CONNECTIONS = {
    "a caller": shares.CALLER_CONNECTIONS,
    "an address": shares.ADDRESS_CONNECTIONS,
    "security events": shares.SECURITY_EVENT_CONNECTIONS,
    "background work": shares.BACKGROUND_CONNECTIONS,
    "proactive refreshes": shares.PROACTIVE_REFRESH_CONNECTIONS,
    "monitoring": shares.MONITORING_CONNECTIONS,
}

REFRESHES = {
    "a caller's single requests": limits.CONCURRENT_REFRESHES,
    "its batches": limits.CONCURRENT_BATCH_REFRESHES,
    "proactive refreshes": proactive_refresh.AT_ONCE,
}

CALLS_TO_GOOGLE = {
    "refreshes": google_calls.AT_ONCE,
    "code exchanges": code_exchange.CONCURRENT_EXCHANGES,
    "revocations": revocation_sender.CONCURRENT_REVOCATIONS,
    # One at a time each: discovery, two key sets, their configuration, and issuers' documents.
    "documents": 10,
}

EXCHANGES = {"an address": code_exchange.CONCURRENT_EXCHANGES_PER_ADDRESS}


def leaves_room(sizes: Mapping[str, int], *, of: int, room_for: int) -> bool:
    """True if all sizes together leave `room_for` units of the resource."""
    return sum(sizes.values()) + room_for <= of and sum(sizes.values()) < of


def test_the_pool_fits_all_shares_and_another_caller() -> None:
    assert leaves_room(CONNECTIONS, of=shares.POOL_SIZE, room_for=shares.CALLER_CONNECTIONS)


def test_the_refresh_limit_fits_all_shares_and_another_caller() -> None:
    another = limits.CONCURRENT_REFRESHES + limits.CONCURRENT_BATCH_REFRESHES
    assert leaves_room(REFRESHES, of=google_calls.AT_ONCE, room_for=another)


def test_the_code_exchange_limit_fits_two_addresses() -> None:
    assert leaves_room(
        EXCHANGES,
        of=code_exchange.CONCURRENT_EXCHANGES,
        room_for=code_exchange.CONCURRENT_EXCHANGES_PER_ADDRESS,
    )


def test_the_http_client_has_connections_for_all_concurrent_calls_to_google() -> None:
    assert sum(CALLS_TO_GOOGLE.values()) < http_client.MAX_CONNECTIONS


def test_the_limits_of_a_user_and_of_a_grant_are_below_their_callers() -> None:
    assert (
        limits.CONCURRENT_DATABASE_REQUESTS_PER_USER
        < limits.CONCURRENT_DATABASE_REQUESTS
        <= shares.CALLER_CONNECTIONS
    )
    assert limits.CONCURRENT_REFRESHES_PER_GRANT < limits.CONCURRENT_REFRESHES
    assert limits.CONCURRENT_REFRESHES_PER_GRANT < limits.CONCURRENT_BATCH_REFRESHES


def test_three_replicas_fit_into_postgresqls_default_max_connections() -> None:
    """Of its 100 connections three are for superusers. Beside its pool, each replica has a
    connection for the change feed, and may have one for the failure detector.
    """
    assert 3 * (shares.POOL_SIZE + 2) <= 97


def test_the_limits_of_an_earlier_release_did_not_fit() -> None:
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


async def test_a_caller_gets_at_most_its_share_of_connections(database_url: str) -> None:
    database = Database(Secret(database_url), connect_seconds=1)
    await database.open()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(database.close)
        with _as_caller("loud"):
            for _ in range(shares.CALLER_CONNECTIONS):
                await stack.enter_async_context(database.connection())
            with pytest.raises(StorageBusy):
                await database.ping()
            assert not database.is_suspected
        with _as_caller("another"):
            for _ in range(shares.CALLER_CONNECTIONS):
                await stack.enter_async_context(database.connection())
        await database.ping()
    assert not database.was_unavailable_within(60)


async def test_a_returned_connection_goes_to_the_longest_waiting_call(
    database_url: str,
) -> None:
    database = Database(Secret(database_url))
    await database.open()
    with _as_caller("loud"):
        async with AsyncExitStack() as stack:
            for _ in range(shares.CALLER_CONNECTIONS):
                await stack.enter_async_context(database.connection())
            waiting = [asyncio.create_task(database.ping()) for _ in range(20)]
            await asyncio.sleep(0)
            given_up, *others = waiting
            given_up.cancel()
        await asyncio.gather(*others)
    assert given_up.cancelled()
    with _as_caller("loud"):
        # The cancelled call has lost no connection.
        async with AsyncExitStack() as stack:
            for _ in range(shares.CALLER_CONNECTIONS):
                await stack.enter_async_context(database.connection())
    await database.close()


async def test_a_task_that_waits_for_a_lock_has_no_connection(database_url: str) -> None:
    database = Database(Secret(database_url), connect_seconds=0.2)
    await database.open()
    async with database.exclusively("user ada", "account 1"):
        with pytest.raises(StorageBusy):
            async with database.exclusively("account 2", "user ada"):
                raise AssertionError("both hold the key")
        # The call that timed out holds nothing.
        async with database.exclusively("account 2"):
            pass
    async with database.exclusively("account 1", "user ada"):
        pass
    await database.close()


async def test_an_exhausted_share_does_not_block_another_share_for_the_same_user(
    database_url: str,
) -> None:
    database = Database(Secret(database_url), connect_seconds=30)
    await database.open()

    async def revoke(name: str) -> None:
        use_share_of_caller(name)
        async with database.exclusively("user ada"), database.transaction() as connection:
            await connection.execute("SELECT 1")

    async with AsyncExitStack() as stack:
        with _as_caller("loud"):
            for _ in range(shares.CALLER_CONNECTIONS):
                await stack.enter_async_context(database.connection())
        loud = asyncio.create_task(revoke("loud"))
        await eventually(lambda: _waits_for_its_share(database, "loud"))
        # Blocked, it would fail after half a minute.
        await asyncio.create_task(revoke("another"))
        assert not loud.done()
    await loud
    await database.close()


async def _waits_for_its_share(database: Database, caller: str) -> bool:
    return database._pool._shares.waiting(f"caller {caller}") > 0


@pytest.mark.parametrize("seconds", [None, 0.2], ids=["without", "with a read replica"])
async def test_waiting_for_the_own_share_does_not_suspect_the_server(
    database_url: str, seconds: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.database.database.SUSPECT_AFTER_SECONDS", 0.0)
    database = Database(Secret(database_url), connect_seconds=1)
    await database.open()
    suspected: list[None] = []
    monkeypatch.setattr(database._failure_detector, "suspect", lambda: suspected.append(None))
    async with AsyncExitStack() as stack:
        with _as_caller("loud"):
            for _ in range(shares.CALLER_CONNECTIONS):
                await stack.enter_async_context(database.connection())
            with pytest.raises(StorageBusy):
                await database.read("SELECT 1", timeout_seconds=seconds)
    assert not suspected
    assert not database.was_unavailable_within(60)
    await database.close()


async def test_acquiring_several_keys_never_deadlocks() -> None:
    mutex = KeyedMutex(timeout_seconds=30)
    order = []

    async def run(name: str, *keys: str) -> None:
        acquired = await mutex.acquire(keys)
        await asyncio.sleep(0)
        order.append(name)
        mutex.release(acquired)

    async with asyncio.timeout(10):
        await asyncio.gather(
            run("first", "a", "b"), run("second", "b", "a"), run("third", "b", "b")
        )
    assert sorted(order) == ["first", "second", "third"]


async def test_however_their_use_ends_no_connection_is_lost(database_url: str) -> None:
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
    assert not len(database._mutex._semaphore)
    await eventually(lambda: _is_whole(database))
    await database.close()


async def _is_whole(database: Database) -> bool:
    """True if no connection is lent or being closed."""
    return not len(database._pool._permits) and not len(database._pool._shares)


async def test_a_semaphore_has_a_limit_per_key_and_a_fifo_queue() -> None:
    semaphore = KeyedSemaphore()
    assert semaphore.try_acquire("a", 1)
    assert not semaphore.try_acquire("a", 1)
    assert semaphore.try_acquire("b", 1)
    order: list[int] = []

    async def hold(number: int) -> None:
        await semaphore.acquire("a", 1)
        order.append(number)
        semaphore.release("a")

    waiting = [asyncio.create_task(hold(number)) for number in range(3)]
    await asyncio.sleep(0)
    assert (semaphore.held("a"), semaphore.waiting("a"), semaphore.all_waiting) == (1, 3, 3)
    semaphore.release("a")
    await asyncio.gather(*waiting)
    assert order == [0, 1, 2]
    semaphore.release("b")
    assert not len(semaphore)


async def test_a_slot_that_is_handed_to_a_cancelled_call_goes_to_the_next() -> None:
    semaphore = KeyedSemaphore()
    assert semaphore.try_acquire("a", 1)
    cancelled = asyncio.create_task(semaphore.acquire("a", 1))
    following = asyncio.create_task(semaphore.acquire("a", 1))
    await asyncio.sleep(0)
    semaphore.release("a")
    cancelled.cancel()
    await following
    assert cancelled.cancelled()
    assert (semaphore.held("a"), semaphore.waiting("a")) == (1, 0)
