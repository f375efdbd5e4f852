"""Many tokens in one request: each item gets what it would get alone, and is nobody else's burden."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

from broker.callers.keys import new_key
from broker.devstack.google_standin import Fault, GoogleStandin
from broker.devstack.postgres import EmbeddedPostgres
from tests.support.clock import ManualClock
from tests.support.world import (
    CALENDAR,
    CALENDAR_READONLY,
    GMAIL_READONLY,
    World,
    open_world,
    stanza,
)

GRACE = "grace@example.com"


async def ask(world: World, *items: Any, **headers: str) -> httpx2.Response:
    """Send a batch of these items."""
    return await world.internal.post(
        "/v1/tokens", json={"requests": list(items)}, headers=world.authorization | headers
    )


async def results(world: World, *items: Any) -> list[dict[str, Any]]:
    """What a batch of these items is answered."""
    answer = await ask(world, *items)
    assert answer.status_code == 200, answer.text
    listed: list[dict[str, Any]] = answer.json()["results"]
    return listed


def of(user_id: str = "user-1", **more: Any) -> dict[str, Any]:
    return {"user_id": user_id, **more}


async def connected(world: World, *user_ids: str) -> None:
    for user_id in user_ids:
        assert (await world.connect(user_id)).response.status_code == 200


async def send(world: World, content: bytes, **headers: str) -> httpx2.Response:
    """Send these bytes as a batch."""
    return await world.internal.post(
        "/v1/tokens",
        content=content,
        headers={**world.authorization, "Content-Type": "application/json", **headers},
    )


async def test_each_result_is_what_the_user_gets_alone_and_in_its_place(world: World) -> None:
    await connected(world, "user-1", "user-2")
    first, second, nobody = await results(world, of("user-2"), of("user-1"), of("user-3"))
    assert first == (await world.token("user-2")).json()
    assert second == (await world.token("user-1")).json()
    assert nobody["error"]["code"] == "grant_not_found"


async def test_an_error_is_the_problem_that_comes_alone(world: World) -> None:
    await world.connect()
    (result,) = await results(world, of(scope=CALENDAR))
    alone = (await world.token(scope=CALENDAR)).json()
    assert result["error"] | {"request_id": ""} == alone | {"request_id": ""}


async def test_the_answer_is_not_to_be_stored_and_carries_the_request_id(world: World) -> None:
    await world.connect()
    for _ in range(2):
        answer = await ask(world, of(), of("nobody"), **{"X-Request-Id": "my-batch"})
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-request-id"] == "my-batch"
        assert answer.json()["results"][1]["error"]["request_id"] == "my-batch"


async def test_scope_account_and_min_ttl_mean_what_they_mean_alone(world: World) -> None:
    await world.connect(scopes=[CALENDAR, CALENDAR_READONLY])
    await world.connect(account=GRACE)
    narrow, other = await results(
        world, of(scope=CALENDAR_READONLY, min_ttl=300), of(account=GRACE)
    )
    assert narrow["scope"] == CALENDAR_READONLY
    assert other["account"]["email"] == GRACE


async def test_a_warm_batch_asks_neither_google_nor_the_database(
    world: World, postgres: EmbeddedPostgres, database_name: str
) -> None:
    await connected(world, "user-1", "user-2")
    before = await results(world, of("user-1"), of("user-2"))
    refreshes = world.refreshes_at_google()
    postgres.drop_database(database_name)
    assert await results(world, of("user-2"), of("user-1")) == before[::-1]
    assert world.refreshes_at_google() == refreshes


async def test_the_remaining_seconds_count_down(world: World) -> None:
    await world.connect()
    (before,) = await results(world, of())
    world.clock.advance(timedelta(minutes=10))
    (after,) = await results(world, of())
    assert before["expires_in"] - after["expires_in"] == 600


async def test_a_warm_item_that_lives_less_than_min_ttl_is_refreshed(world: World) -> None:
    await world.connect()
    (before,) = await results(world, of())
    world.clock.advance(timedelta(minutes=59, seconds=30))
    (content,) = await results(world, of(min_ttl=10))
    (after,) = await results(world, of())
    assert content["access_token"] == before["access_token"] != after["access_token"]


async def test_the_cold_ones_are_read_in_one_round_trip(
    tmp_path: Path, database_url: str, standin: GoogleStandin, clock: ManualClock, world: World
) -> None:
    users = [f"user-{number}" for number in range(12)]
    await connected(world, *users)
    before = world.refreshes_at_google()
    (tmp_path / "other").mkdir()
    async with open_world(
        tmp_path / "other",
        database_url,
        standin,
        clock,
        changes={"SECRET_KEY": world.settings.secret_keys[0].reveal()},
    ) as other:
        await other.sql("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
        answered = await results(other, *map(of, users))
    assert {"access_token" in result for result in answered} == {True}
    assert world.refreshes_at_google() == before
