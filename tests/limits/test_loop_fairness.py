"""Fairness per event-loop iteration: a bounded number starts in each, keys in turn."""

import asyncio
from itertools import pairwise

from broker.limits.loop_fairness import LoopFairness


async def _start(fairness: LoopFairness, key: str, started: list[str]) -> None:
    await fairness.admit(key)
    started.append(key)


def _start_all(
    fairness: LoopFairness, key: str, count: int, started: list[str]
) -> list["asyncio.Task[None]"]:
    return [asyncio.create_task(_start(fairness, key, started)) for _ in range(count)]


async def test_a_bounded_number_starts_in_each_iteration() -> None:
    fairness, started = LoopFairness(per_iteration=3), list[str]()
    tasks = _start_all(fairness, "one", 10, started)
    seen = [0]
    while seen[-1] < 10:
        await asyncio.sleep(0)
        seen.append(len(started))
    assert max(after - before for before, after in pairwise(seen)) == 3
    await asyncio.gather(*tasks)
    assert len(fairness) == 0


async def test_keys_are_served_round_robin() -> None:
    fairness, started = LoopFairness(per_iteration=2), list[str]()
    tasks = [*_start_all(fairness, "wild", 50, started), *_start_all(fairness, "meek", 3, started)]
    await asyncio.gather(*tasks)
    last = len(started) - started[::-1].index("meek")
    assert last <= 2 + 2 * 3


async def test_a_cancelled_request_takes_no_place() -> None:
    fairness, started = LoopFairness(per_iteration=1), list[str]()
    leaving = _start_all(fairness, "leaving", 20, started)
    await asyncio.sleep(0)
    for task in leaving:
        task.cancel()
    (staying,) = _start_all(fairness, "staying", 1, started)
    for _ in range(4):
        await asyncio.sleep(0)
    assert staying.done()
    await asyncio.wait(leaving)
    assert len(fairness) == 0


async def test_the_next_iteration_has_the_full_number_again() -> None:
    fairness, started = LoopFairness(per_iteration=2), list[str]()
    assert fairness.try_admit()
    assert fairness.try_admit()
    assert not fairness.try_admit()
    await asyncio.sleep(0)
    assert fairness.try_admit()
    await asyncio.gather(*_start_all(fairness, "one", 1, started))
    assert started == ["one"]


async def test_a_waiting_request_is_not_overtaken() -> None:
    fairness, started = LoopFairness(per_iteration=1), list[str]()
    tasks = _start_all(fairness, "one", 3, started)
    await asyncio.sleep(0)
    assert not fairness.try_admit()
    await asyncio.gather(*tasks)
