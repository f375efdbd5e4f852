"""Rounds: a few beginnings in each, the names in turn, and nothing left behind."""

import asyncio
from itertools import pairwise

from broker.limits.loop_fairness import Rounds


async def _begin(rounds: Rounds, name: str, begun: list[str]) -> None:
    await rounds.begin(name)
    begun.append(name)


def _all_of(rounds: Rounds, name: str, count: int, begun: list[str]) -> list["asyncio.Task[None]"]:
    return [asyncio.create_task(_begin(rounds, name, begun)) for _ in range(count)]


async def test_so_many_begin_in_a_round_and_no_more() -> None:
    rounds, begun = Rounds(each=3), list[str]()
    tasks = _all_of(rounds, "one", 10, begun)
    seen = [0]
    while seen[-1] < 10:
        await asyncio.sleep(0)
        seen.append(len(begun))
    assert max(after - before for before, after in pairwise(seen)) == 3
    await asyncio.gather(*tasks)
    assert len(rounds) == 0


async def test_the_names_take_turns() -> None:
    rounds, begun = Rounds(each=2), list[str]()
    tasks = [*_all_of(rounds, "wild", 50, begun), *_all_of(rounds, "meek", 3, begun)]
    await asyncio.gather(*tasks)
    last = len(begun) - begun[::-1].index("meek")
    assert last <= 2 + 2 * 3


async def test_who_has_left_takes_nobodys_turn() -> None:
    rounds, begun = Rounds(each=1), list[str]()
    leaving = _all_of(rounds, "leaving", 20, begun)
    await asyncio.sleep(0)
    for task in leaving:
        task.cancel()
    (staying,) = _all_of(rounds, "staying", 1, begun)
    for _ in range(4):
        await asyncio.sleep(0)
    assert staying.done()
    await asyncio.wait(leaving)
    assert len(rounds) == 0


async def test_after_a_rest_there_is_a_full_round_again() -> None:
    rounds, begun = Rounds(each=2), list[str]()
    assert rounds.begin_now()
    assert rounds.begin_now()
    assert not rounds.begin_now()
    await asyncio.sleep(0)
    assert rounds.begin_now()
    await asyncio.gather(*_all_of(rounds, "one", 1, begun))
    assert begun == ["one"]


async def test_who_is_in_line_is_not_overtaken() -> None:
    rounds, begun = Rounds(each=1), list[str]()
    tasks = _all_of(rounds, "one", 3, begun)
    await asyncio.sleep(0)
    assert not rounds.begin_now()
    await asyncio.gather(*tasks)
