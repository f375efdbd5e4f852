"""Every token request that fails through no fault of its caller is counted.

The service level objective and its alerts depend on that count alone.
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
from tests.support.workloads import IssuerWorld
from tests.support.world import World

DEFECT = (RuntimeError("a defect"), 500, "internal_error")
OUTAGE = (StorageUnavailable("away"), 503, "storage_unavailable")
FAILURES = pytest.mark.parametrize(("error", "status", "code"), [DEFECT, OUTAGE])


def break_method(monkeypatch: pytest.MonkeyPatch, where: type, name: str, error: Exception) -> None:
    def fail(*_args: object, **_named: object) -> NoReturn:
        raise error

    monkeypatch.setattr(where, name, fail)


async def counted(world: World, caller: str, outcome: str) -> float:
    return await world.metric("broker_token_requests_total", caller=caller, outcome=outcome)


async def stop_the_issuer(issuer_world: IssuerWorld) -> None:
    """Stop the issuer while the broker has none of its keys."""
    issuer_world.issuer.break_down()
    await issuer_world.world.rewrite_callers(
        issuer_world.callers(), issuer_world.issuers(algorithms=["RS256"])
    )


async def a_batch(world: World, *user_ids: str) -> int:
    items: list[Mapping[str, Any]] = [{"user_id": user_id} for user_id in user_ids]
    answer = await world.internal.post(
        "/v1/tokens", json={"requests": items}, headers=world.authorization
    )
    return answer.status_code


@FAILURES
async def test_a_failed_single_request_is_counted(
    world: World, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int, code: str
) -> None:
    break_method(monkeypatch, TokenDispenser, "dispense", error)
    assert (await world.token()).status_code == status
    assert await counted(world, "calendar-sync", code) == 1


@FAILURES
async def test_each_item_of_a_failed_batch_is_counted(
    world: World, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int, code: str
) -> None:
    break_method(monkeypatch, BatchDispenser, "dispense", error)
    assert await a_batch(world, "user-1", "user-2", "user-3") == status
    assert await counted(world, "calendar-sync", code) == 3


async def test_a_failed_item_of_a_batch_is_counted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_args: object, **_named: object) -> NoReturn:
        raise RuntimeError("a defect")

    monkeypatch.setattr(TokenDispenser, "fetch", fail)
    assert await a_batch(world, "user-1", "user-2") == 200
    assert await counted(world, "calendar-sync", "internal_error") == 2


@FAILURES
async def test_a_failed_token_exchange_is_counted(
    issuer_world: IssuerWorld,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    status: int,
    code: str,
) -> None:
    break_method(monkeypatch, TokenDispenser, "dispense", error)
    assert (await exchange(issuer_world)).status_code == status
    assert await counted(issuer_world.world, "calendar-sync", code) == 1


@pytest.mark.parametrize(
    ("where", "name"), [(CallerRegistry, "authenticate"), (CallerLimits, "admit")]
)
async def test_a_failure_before_the_caller_is_known_is_counted(
    issuer_world: IssuerWorld, monkeypatch: pytest.MonkeyPatch, where: type, name: str
) -> None:
    break_method(monkeypatch, where, name, RuntimeError("a defect"))
    world = issuer_world.world
    assert (await world.token()).status_code == 500
    assert await a_batch(world, "user-1") == 500
    assert (await exchange(issuer_world)).status_code == 500
    by_name = await counted(world, "calendar-sync", "internal_error")
    assert by_name + await counted(world, "-", "internal_error") == 3


async def test_a_workload_whose_issuer_is_unavailable_is_counted(issuer_world: IssuerWorld) -> None:
    world = issuer_world.world
    await stop_the_issuer(issuer_world)
    token = issuer_world.issuer.mint()
    assert (await issuer_world.token_as(token)).status_code == 503
    as_bearer = await exchange(issuer_world, headers={"Authorization": f"Bearer {token}"})
    assert as_bearer.status_code == 503
    asserted = form(
        issuer_world,
        client_assertion=token,
        client_assertion_type="urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
    )
    assert (await world.internal.post("/oauth/token", data=asserted)).status_code == 503
    assert await counted(world, "-", "issuer_unavailable") == 3


async def test_a_user_whose_issuer_is_unavailable_is_counted(issuer_world: IssuerWorld) -> None:
    await stop_the_issuer(issuer_world)
    assert (await exchange(issuer_world)).status_code == 503
    assert await counted(issuer_world.world, "calendar-sync", "issuer_unavailable") == 1


async def test_a_failure_of_another_route_is_not_counted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_method(monkeypatch, CallerRegistry, "authenticate", RuntimeError("a defect"))
    answer = await world.internal.get("/v1/users/user-1/grants", headers=world.authorization)
    assert answer.status_code == 500
    assert await counted(world, "-", "internal_error") == 0


async def test_failures_without_a_caller_start_at_zero(world: World) -> None:
    shown = (await world.ops.get("/metrics")).text
    for outcome in ("storage_unavailable", "issuer_unavailable", "internal_error"):
        assert f'broker_token_requests_total{{caller="-",outcome="{outcome}"}} 0.0' in shown
