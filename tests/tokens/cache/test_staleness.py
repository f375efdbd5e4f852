"""A replica that is cut off from PostgreSQL serves cached tokens for a bounded time."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta

import pytest

from devstack.google_standin import GoogleStandin
from tests.support.clock import ManualClock
from tests.support.lossy_link import LossyLink, lossy_link
from tests.support.security_events import send_event
from tests.support.waiting import eventually
from tests.support.world import ADA, World, open_world

AT_MOST = 2
"""Seconds."""


@dataclass
class Split:
    """Two replicas; the packets of one to PostgreSQL can be dropped."""

    near: World
    far: World
    link: LossyLink

    async def end_grants(self) -> None:
        """One is revoked and the account of the other hijacked, as the far one can't hear."""
        assert (await self.near.revoke("user-1")).status_code == 204
        self.near.clock.advance(timedelta(seconds=5))
        account = "grace@example.com"
        await send_event(self.near, "account-disabled", account, payload={"reason": "hijacking"})

    async def statuses(self) -> set[tuple[int, str | None]]:
        answers = [await self.far.token(user_id) for user_id in ("user-1", "user-2")]
        return {(answer.status_code, answer.json().get("code")) for answer in answers}


SERVED = {(200, None)}
REFUSED = {(503, "storage_unavailable")}


async def _split(
    world: World,
    standin: GoogleStandin,
    clock: ManualClock,
    tmp_path_factory: pytest.TempPathFactory,
    **changes: str,
) -> AsyncIterator[Split]:
    url = world.settings.database_url.reveal()
    standin.add_account("grace@example.com")
    async with (
        lossy_link(url) as (link, address),
        open_world(tmp_path_factory.mktemp("far"), address, standin, clock, changes=changes) as far,
    ):
        for user_id, account in (("user-1", ADA), ("user-2", "grace@example.com")):
            await world.connect(user_id, account)
            for replica in (world, far):
                assert (await replica.token(user_id)).status_code == 200
        yield Split(world, far, link)


@pytest.fixture
async def bounded(
    world: World,
    standin: GoogleStandin,
    clock: ManualClock,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Split]:
    limit = {"BROKER_STALE_TOKENS_AT_MOST": str(AT_MOST)}
    async for split in _split(world, standin, clock, tmp_path_factory, **limit):
        yield split


@pytest.fixture
async def unbounded(
    world: World,
    standin: GoogleStandin,
    clock: ManualClock,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Split]:
    async for split in _split(world, standin, clock, tmp_path_factory):
        yield split


async def _is_served(split: Split) -> bool:
    return await split.statuses() == SERVED


async def test_past_the_limit_a_replica_that_is_cut_off_serves_nothing_and_is_not_ready(
    bounded: Split,
) -> None:
    bounded.link.cut()
    await bounded.end_grants()

    async def is_refused() -> bool:
        return await bounded.statuses() == REFUSED

    await eventually(is_refused)
    ready = await bounded.far.ops.get("/readyz")
    assert (ready.status_code, ready.json()["status"]) == (503, "unavailable")
    bounded.link.heal_with_reset()

    async def knows_the_grants_status() -> bool:
        return await bounded.statuses() == {
            (404, "grant_not_found"),
            (409, "reauthorization_required"),
        }

    await eventually(knows_the_grants_status)


async def test_once_it_is_connected_again_tokens_are_cached_again(
    bounded: Split, caplog: pytest.LogCaptureFixture
) -> None:
    bounded.link.cut()

    async def is_refused() -> bool:
        return await bounded.statuses() == REFUSED

    await eventually(is_refused)
    bounded.link.heal_with_reset()

    async def is_cached_again() -> bool:
        return "token_cache_resumed" in {vars(record).get("event") for record in caplog.records}

    await eventually(is_cached_again)
    await eventually(lambda: _is_served(bounded))
    bounded.link.cut()
    # From memory alone.
    assert await bounded.statuses() == SERVED


async def test_a_connected_replica_keeps_its_cached_tokens(bounded: Split) -> None:
    await asyncio.sleep(AT_MOST + 1)
    await eventually(lambda: _is_served(bounded))
    bounded.link.cut()
    assert await bounded.statuses() == SERVED


async def test_without_a_limit_cached_tokens_are_served_until_they_expire(
    unbounded: Split,
) -> None:
    unbounded.link.cut()
    await unbounded.end_grants()
    await asyncio.sleep(AT_MOST + 1)
    assert await unbounded.statuses() == SERVED
    unbounded.far.clock.advance(timedelta(hours=1))
    assert await unbounded.statuses() == REFUSED
