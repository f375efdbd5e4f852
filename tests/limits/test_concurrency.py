"""Turns: a share for each name, a line with an end, and nothing left behind."""

import asyncio

import pytest

from broker.limits.concurrency import OverloadedError, Turns


def _turns(*, at_once: int = 1, waiting: int = 10, patience_seconds: float = 10.0) -> Turns:
    return Turns(at_once=at_once, waiting=waiting, patience_seconds=patience_seconds)


async def test_one_name_waits_for_itself_only() -> None:
    turns = _turns()
    await turns.take("wild")
    waiting = [asyncio.create_task(turns.take("wild")) for _ in range(5)]
    await asyncio.wait_for(turns.take("other"), 1)
    assert not any(task.done() for task in waiting)
    for _ in range(6):
        turns.give_back("wild")
        await asyncio.sleep(0)
    turns.give_back("other")
    assert len(turns) == 0


async def test_who_came_first_is_first() -> None:
    turns = _turns()
    order: list[int] = []

    async def use(number: int) -> None:
        await turns.take("one")
        order.append(number)
        await asyncio.sleep(0)
        turns.give_back("one")

    await asyncio.gather(*(use(number) for number in range(20 // 2)))
    assert order == list(range(10))


async def test_the_line_has_an_end() -> None:
    turns = _turns(waiting=2)
    await turns.take("wild")
    waiting = [asyncio.create_task(turns.take("wild")) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(OverloadedError):
        await turns.take("wild")
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)
    turns.give_back("wild")
    assert len(turns) == 0


async def test_nobody_waits_for_ever() -> None:
    turns = _turns(patience_seconds=0.01)
    await turns.take("slow")
    with pytest.raises(OverloadedError):
        await turns.take("slow")
    turns.give_back("slow")
    assert len(turns) == 0


async def test_a_turn_given_to_one_who_is_gone_goes_to_the_next() -> None:
    turns = _turns()
    await turns.take("one")
    leaving, staying = (asyncio.create_task(turns.take("one")) for _ in range(2))
    await asyncio.sleep(0)
    turns.give_back("one")
    leaving.cancel()
    await asyncio.wait_for(staying, 1)
    turns.give_back("one")
    assert len(turns) == 0


async def test_who_gives_up_as_a_turn_comes_back_gives_back_no_other_s() -> None:
    turns = Turns(at_once=2, waiting=9, patience_seconds=30)
    await turns.take("name")
    await turns.take("name")
    given_up = asyncio.create_task(turns.take("name"))
    await asyncio.sleep(0)
    given_up.cancel()
    turns.give_back("name")
    await asyncio.wait([given_up])
    await turns.take("name")
    late = asyncio.create_task(turns.take("name"))
    await asyncio.sleep(0)
    assert not late.done()
    turns.give_back("name")
    await late
