"""A new refresh token that comes when its grant has ended is not left alive at Google."""

import asyncio
from datetime import timedelta

import pytest

from devstack.google_standin import Fault
from tests.security.probes import audited
from tests.support.lossy_link import LossyLink
from tests.support.waiting import eventually
from tests.support.world import World, open_world


async def rotating(world: World) -> asyncio.Task[object]:
    """A refresh whose answer brings a new refresh token, but not yet; the old one is dead."""
    await world.connect()
    world.clock.advance(timedelta(hours=1))
    world.standin.faults.next(
        "token", Fault.rotate_refresh_token(hold="rotated"), grant_type="refresh_token"
    )
    asking = asyncio.create_task(world.token())
    await asyncio.to_thread(world.standin.holds.wait_until_held, "rotated")
    return asking


async def withdrawn(world: World) -> None:
    """The user's grant, of which Google was told by its old refresh token."""
    assert (await world.revoke()).status_code == 204
    await eventually(lambda: told(world))


async def told(world: World) -> bool:
    return await world.sql("SELECT 1 FROM pending_revocations") == []


async def nothing_alive(world: World) -> bool:
    with world.standin.state.lock:
        return world.standin.state.refresh_tokens == {} and await told(world)


async def test_one_that_comes_after_the_withdrawal_is_revoked(world: World) -> None:
    asking = await rotating(world)
    await withdrawn(world)
    world.standin.holds.release("rotated")
    await asking
    await audited(world, "token_refreshed", "superseded")
    await eventually(lambda: nothing_alive(world))


async def test_one_that_comes_after_the_withdrawal_ends_nothing_that_somebody_else_has(
    world: World,
) -> None:
    asking = await rotating(world)
    await withdrawn(world)
    await world.connect("user-2")
    revocations = world.standin.requests.count("revoke")
    world.standin.holds.release("rotated")
    await asking
    await audited(world, "token_refreshed", "superseded")
    assert await told(world)
    assert (await world.token("user-2", min_ttl=86_400)).status_code == 200
    assert world.standin.requests.count("revoke") == revocations


async def test_one_that_could_not_be_written_before_the_withdrawal_is_revoked(
    linked_world: tuple[LossyLink, World],
    database_url: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """This replica is cut off from PostgreSQL; the user withdraws at another."""
    link, world = linked_world
    folder = tmp_path_factory.mktemp("other")
    async with open_world(folder, database_url, world.standin, world.clock) as other:
        asking = await rotating(world)
        link.stop_carrying()
        world.standin.holds.release("rotated")
        await asking
        await withdrawn(other)
        assert len(world.standin.state.refresh_tokens) == 1
        link.carry_on()
        await eventually(lambda: nothing_alive(other), seconds=60)
