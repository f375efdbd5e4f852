"""The concurrency limit per key: separate keys, a bounded FIFO queue, no memory of unused keys."""

import asyncio

import pytest

from broker.limits.concurrency import ConcurrencyLimit, OverloadedError


def _limit(*, limit: int = 1, queue: int = 10, timeout_seconds: float = 10.0) -> ConcurrencyLimit:
    return ConcurrencyLimit(limit=limit, queue=queue, timeout_seconds=timeout_seconds)


async def test_a_key_waits_for_itself_only() -> None:
    limit = _limit()
    await limit.acquire("wild")
    waiting = [asyncio.create_task(limit.acquire("wild")) for _ in range(5)]
    await asyncio.wait_for(limit.acquire("other"), 1)
    assert not any(task.done() for task in waiting)
    for _ in range(6):
        limit.release("wild")
        await asyncio.sleep(0)
    limit.release("other")
    assert len(limit) == 0


async def test_waiting_requests_are_served_in_their_order() -> None:
    limit = _limit()
    order: list[int] = []

    async def use(number: int) -> None:
        await limit.acquire("one")
        order.append(number)
        await asyncio.sleep(0)
        limit.release("one")

    await asyncio.gather(*(use(number) for number in range(10)))
    assert order == list(range(10))


async def test_a_full_queue_rejects() -> None:
    limit = _limit(queue=2)
    await limit.acquire("wild")
    waiting = [asyncio.create_task(limit.acquire("wild")) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(OverloadedError):
        await limit.acquire("wild")
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)
    limit.release("wild")
    assert len(limit) == 0


async def test_a_wait_ends_at_the_timeout() -> None:
    limit = _limit(timeout_seconds=0.01)
    await limit.acquire("slow")
    with pytest.raises(OverloadedError):
        await limit.acquire("slow")
    limit.release("slow")
    assert len(limit) == 0


async def test_a_place_is_acquired_without_waiting_or_not_at_all() -> None:
    limit = _limit(limit=2)
    assert [limit.try_acquire("one") for _ in range(3)] == [True, True, False]
    assert limit.try_acquire("other")
    limit.release("one")
    assert limit.try_acquire("one")


async def test_a_place_for_a_cancelled_request_goes_to_the_next() -> None:
    limit = _limit()
    await limit.acquire("one")
    leaving, staying = (asyncio.create_task(limit.acquire("one")) for _ in range(2))
    await asyncio.sleep(0)
    limit.release("one")
    leaving.cancel()
    await asyncio.wait_for(staying, 1)
    limit.release("one")
    assert len(limit) == 0


async def test_a_request_cancelled_at_a_release_releases_no_other_place() -> None:
    limit = _limit(limit=2, queue=9, timeout_seconds=30)
    await limit.acquire("key")
    await limit.acquire("key")
    cancelled = asyncio.create_task(limit.acquire("key"))
    await asyncio.sleep(0)
    cancelled.cancel()
    limit.release("key")
    await asyncio.wait([cancelled])
    await limit.acquire("key")
    late = asyncio.create_task(limit.acquire("key"))
    await asyncio.sleep(0)
    assert not late.done()
    limit.release("key")
    await late
