"""Checks 27 and 31 for requests that were admitted before the callers file changed."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from datetime import timedelta
from typing import Any

import httpx2
import pytest

from devstack.google_standin import Fault
from tests.exchange.harness import exchange
from tests.support.scopes import CALENDAR, CALENDAR_READONLY
from tests.support.workloads import IssuerWorld
from tests.support.world import stanza

Way = Callable[[IssuerWorld], Coroutine[Any, Any, httpx2.Response]]


async def _single(issuer_world: IssuerWorld) -> httpx2.Response:
    return await issuer_world.world.token(scope=CALENDAR_READONLY)


async def _in_a_batch(issuer_world: IssuerWorld) -> httpx2.Response:
    item = {"user_id": "user-1", "scope": CALENDAR_READONLY}
    return await issuer_world.world.internal.post(
        "/v1/tokens", json={"requests": [item]}, headers=issuer_world.world.authorization
    )


async def _by_exchange(issuer_world: IssuerWorld) -> httpx2.Response:
    return await exchange(issuer_world, scope=CALENDAR_READONLY)


async def _answer_after(
    issuer_world: IssuerWorld, way: Way, callers: Mapping[str, Mapping[str, Any]]
) -> httpx2.Response:
    """Return the answer of a request that waits for Google while the callers file changes."""
    world = issuer_world.world
    await world.connect(scopes=[CALENDAR_READONLY])
    world.clock.advance(timedelta(hours=1))
    world.standin.faults.next("token", Fault.hold("slow"))
    asking = asyncio.create_task(way(issuer_world))
    await asyncio.to_thread(world.standin.holds.wait_until_held, "slow")
    await world.rewrite_callers(callers, issuer_world.issuers())
    world.standin.holds.release("slow")
    return await asking


@pytest.mark.parametrize("way", [_single, _in_a_batch, _by_exchange])
@pytest.mark.parametrize(
    "change",
    [None, {"can": ["grants:read"]}, {"users": ["another-user"]}, {"scopes": [CALENDAR]}],
    ids=["removed", "permission", "user", "scope"],
)
async def test_check_27_check_31_a_caller_that_lost_its_right_during_the_refresh_gets_no_token(
    issuer_world: IssuerWorld, way: Way, change: dict[str, Any] | None
) -> None:
    left = {} if change is None else {"calendar-sync": stanza(issuer_world.world.key, **change)}
    answer = await _answer_after(issuer_world, way, left)
    assert "ya29." not in answer.text
    assert answer.status_code in ({401} if change is None else {200, 400, 403})


@pytest.mark.parametrize("way", [_single, _in_a_batch, _by_exchange])
async def test_an_unrelated_policy_change_fails_no_request(
    issuer_world: IssuerWorld, way: Way
) -> None:
    wider = stanza(issuer_world.world.key, scopes=[CALENDAR, CALENDAR_READONLY])
    answer = await _answer_after(issuer_world, way, {"calendar-sync": wider})
    assert "ya29." in answer.text
    assert issuer_world.world.refreshes_at_google() == 1
