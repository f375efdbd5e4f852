"""Each request for a token that fails by no fault of its sender is counted.

The service's objective and its alerts go by that count alone.
"""

from collections.abc import Mapping
from typing import Any, NoReturn

import pytest

from broker.callers.limits import CallerLimits
from broker.callers.registry import CallerRegistry
from broker.database.database import StorageUnavailable
from broker.tokens.batch import BatchDispenser
from broker.tokens.dispenser import TokenDispenser
from tests.exchange.harness import exchange, form
from tests.support.workloads import Trusting
from tests.support.world import World

DEFECT = (RuntimeError("a defect"), 500, "internal_error")
OUTAGE = (StorageUnavailable("away"), 503, "storage_unavailable")
FAILURES = pytest.mark.parametrize(("error", "status", "code"), [DEFECT, OUTAGE])


def breaks(monkeypatch: pytest.MonkeyPatch, where: type, name: str, error: Exception) -> None:
    def fail(*_args: object, **_named: object) -> NoReturn:
        raise error

    monkeypatch.setattr(where, name, fail)


async def counted(world: World, caller: str, outcome: str) -> float:
    return await world.metric("broker_token_requests_total", caller=caller, outcome=outcome)


async def lose_the_issuer(trusting: Trusting) -> None:
    """It is down, and the broker has none of its keys."""
    trusting.issuer.break_down()
    await trusting.world.rewrite_callers(trusting.callers(), trusting.issuers(algorithms=["RS256"]))


async def a_batch(world: World, *user_ids: str) -> int:
    items: list[Mapping[str, Any]] = [{"user_id": user_id} for user_id in user_ids]
    answer = await world.internal.post(
        "/v1/tokens", json={"requests": items}, headers=world.authorization
    )
    return answer.status_code


@FAILURES
async def test_a_single_request(
    world: World, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int, code: str
) -> None:
    breaks(monkeypatch, TokenDispenser, "dispense", error)
    assert (await world.token()).status_code == status
    assert await counted(world, "calendar-sync", code) == 1


@FAILURES
async def test_each_item_of_a_batch_that_fails_as_a_whole(
    world: World, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int, code: str
) -> None:
    breaks(monkeypatch, BatchDispenser, "dispense", error)
    assert await a_batch(world, "user-1", "user-2", "user-3") == status
    assert await counted(world, "calendar-sync", code) == 3


async def test_an_item_that_fails_alone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_args: object, **_named: object) -> NoReturn:
        raise RuntimeError("a defect")

    monkeypatch.setattr(TokenDispenser, "fetch", fail)
    assert await a_batch(world, "user-1", "user-2") == 200
    assert await counted(world, "calendar-sync", "internal_error") == 2


@FAILURES
async def test_a_token_exchange(
    trusting: Trusting, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int, code: str
) -> None:
    breaks(monkeypatch, TokenDispenser, "dispense", error)
    assert (await exchange(trusting)).status_code == status
    assert await counted(trusting.world, "calendar-sync", code) == 1


@pytest.mark.parametrize(
    ("where", "name"), [(CallerRegistry, "authenticate"), (CallerLimits, "admit")]
)
async def test_a_request_that_fails_before_it_is_known_whose_it_is(
    trusting: Trusting, monkeypatch: pytest.MonkeyPatch, where: type, name: str
) -> None:
    breaks(monkeypatch, where, name, RuntimeError("a defect"))
    world = trusting.world
    assert (await world.token()).status_code == 500
    assert await a_batch(world, "user-1") == 500
    assert (await exchange(trusting)).status_code == 500
    by_name = await counted(world, "calendar-sync", "internal_error")
    assert by_name + await counted(world, "-", "internal_error") == 3


async def test_a_workload_whose_issuer_is_away(trusting: Trusting) -> None:
    world = trusting.world
    await lose_the_issuer(trusting)
    token = trusting.issuer.mint()
    assert (await trusting.token_as(token)).status_code == 503
    as_bearer = await exchange(trusting, headers={"Authorization": f"Bearer {token}"})
    assert as_bearer.status_code == 503
    asserted = form(
        trusting,
        client_assertion=token,
        client_assertion_type="urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
    )
    assert (await world.internal.post("/oauth/token", data=asserted)).status_code == 503
    assert await counted(world, "-", "issuer_unavailable") == 3


async def test_a_user_whose_issuer_is_away(trusting: Trusting) -> None:
    await lose_the_issuer(trusting)
    assert (await exchange(trusting)).status_code == 503
    assert await counted(trusting.world, "calendar-sync", "issuer_unavailable") == 1


async def test_what_is_no_request_for_a_token_is_not_counted_as_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    breaks(monkeypatch, CallerRegistry, "authenticate", RuntimeError("a defect"))
    answer = await world.internal.get("/v1/users/user-1/grants", headers=world.authorization)
    assert answer.status_code == 500
    assert await counted(world, "-", "internal_error") == 0


async def test_failures_of_nobody_start_at_zero(world: World) -> None:
    shown = (await world.ops.get("/metrics")).text
    for outcome in ("storage_unavailable", "issuer_unavailable", "internal_error"):
        assert f'broker_token_requests_total{{caller="-",outcome="{outcome}"}} 0.0' in shown
