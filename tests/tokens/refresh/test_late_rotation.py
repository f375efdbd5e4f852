"""A rotated refresh token that arrives after its grant has ended is revoked at Google."""

import asyncio
from datetime import timedelta

import pytest

from devstack.google_standin import Fault
from tests.support.lossy_link import LossyLink
from tests.support.probes import audited
from tests.support.waiting import eventually
from tests.support.world import World, open_world


async def rotating(world: World) -> asyncio.Task[object]:
    """Start a refresh whose answer, held back, has a new refresh token; the old one is invalid."""
    await world.connect()
    world.clock.advance(timedelta(hours=1))
    world.standin.faults.next(
        "token", Fault.rotate_refresh_token(hold="rotated"), grant_type="refresh_token"
    )
    asking = asyncio.create_task(world.token())
    await asyncio.to_thread(world.standin.holds.wait_until_held, "rotated")
    return asking


async def revoked(world: World) -> None:
    """Revoke the user's grant, here and by its old refresh token at Google."""
    assert (await world.revoke()).status_code == 204
    await eventually(lambda: is_outbox_empty(world))


async def is_outbox_empty(world: World) -> bool:
    return await world.sql("SELECT 1 FROM pending_revocations") == []


async def nothing_is_valid(world: World) -> bool:
    with world.standin.state.lock:
        return world.standin.state.refresh_tokens == {} and await is_outbox_empty(world)


async def test_a_token_that_arrives_after_the_revocation_is_revoked(world: World) -> None:
    asking = await rotating(world)
    await revoked(world)
    world.standin.holds.release("rotated")
    await asking
    await audited(world, "token_refreshed", "superseded")
    await eventually(lambda: nothing_is_valid(world))


async def test_a_token_that_arrives_after_the_revocation_ends_no_grant_of_another_user(
    world: World,
) -> None:
    asking = await rotating(world)
    await revoked(world)
    await world.connect("user-2")
    revocations = world.standin.requests.count("revoke")
    world.standin.holds.release("rotated")
    await asking
    await audited(world, "token_refreshed", "superseded")
    assert await is_outbox_empty(world)
    assert (await world.token("user-2", min_ttl=86_400)).status_code == 200
    assert world.standin.requests.count("revoke") == revocations


async def test_a_token_that_could_not_be_written_before_the_revocation_is_revoked(
    linked_world: tuple[LossyLink, World],
    database_url: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """This replica is cut off from PostgreSQL; another one revokes the grant."""
    link, world = linked_world
    folder = tmp_path_factory.mktemp("other")
    async with open_world(folder, database_url, world.standin, world.clock) as other:
        asking = await rotating(world)
        link.cut()
        world.standin.holds.release("rotated")
        await asking
        await revoked(other)
        assert len(world.standin.state.refresh_tokens) == 1
        link.heal()
        await eventually(lambda: nothing_is_valid(other), seconds=60)
