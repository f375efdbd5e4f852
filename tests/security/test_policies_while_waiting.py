"""Checks 27 and 31 for requests that were admitted before the callers file changed."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from datetime import timedelta
from typing import Any

import httpx2
import pytest

from devstack.google_standin import Fault
from tests.exchange.harness import exchange
from tests.support.workloads import Trusting
from tests.support.world import CALENDAR, CALENDAR_READONLY, stanza

Way = Callable[[Trusting], Coroutine[Any, Any, httpx2.Response]]


async def _alone(trusting: Trusting) -> httpx2.Response:
    return await trusting.world.token(scope=CALENDAR_READONLY)


async def _in_a_batch(trusting: Trusting) -> httpx2.Response:
    item = {"user_id": "user-1", "scope": CALENDAR_READONLY}
    return await trusting.world.internal.post(
        "/v1/tokens", json={"requests": [item]}, headers=trusting.world.authorization
    )


async def _by_exchange(trusting: Trusting) -> httpx2.Response:
    return await exchange(trusting, scope=CALENDAR_READONLY)


async def _answer_after(
    trusting: Trusting, way: Way, callers: Mapping[str, Mapping[str, Any]]
) -> httpx2.Response:
    """What a request gets that waits for Google while the callers file becomes another."""
    world = trusting.world
    await world.connect(scopes=[CALENDAR_READONLY])
    world.clock.advance(timedelta(hours=1))
    world.standin.faults.next("token", Fault.hold("slow"))
    asking = asyncio.create_task(way(trusting))
    await asyncio.to_thread(world.standin.holds.wait_until_held, "slow")
    await world.rewrite_callers(callers, trusting.issuers())
    world.standin.holds.release("slow")
    return await asking


@pytest.mark.parametrize("way", [_alone, _in_a_batch, _by_exchange])
@pytest.mark.parametrize(
    "change",
    [None, {"can": ["grants:read"]}, {"users": ["somebody-else"]}, {"scopes": [CALENDAR]}],
    ids=["removed", "permission", "user", "scope"],
)
async def test_check_27_check_31_who_lost_the_right_while_google_was_slow_gets_no_token(
    trusting: Trusting, way: Way, change: dict[str, Any] | None
) -> None:
    left = {} if change is None else {"calendar-sync": stanza(trusting.world.key, **change)}
    answer = await _answer_after(trusting, way, left)
    assert "ya29." not in answer.text
    assert answer.status_code in ({401} if change is None else {200, 400, 403})


@pytest.mark.parametrize("way", [_alone, _in_a_batch, _by_exchange])
async def test_a_change_that_takes_nothing_away_costs_no_answer(
    trusting: Trusting, way: Way
) -> None:
    wider = stanza(trusting.world.key, scopes=[CALENDAR, CALENDAR_READONLY])
    answer = await _answer_after(trusting, way, {"calendar-sync": wider})
    assert "ya29." in answer.text
    assert trusting.world.refreshes_at_google() == 1
