"""A reload of the callers file keeps or invalidates cached tokens."""

from broker.callers.keys import new_key
from devstack.postgres import EmbeddedPostgres
from tests.support.outages import database_unavailable
from tests.support.world import World, stanza


async def test_an_added_caller_keeps_the_cached_tokens_of_the_others(
    world: World, postgres: EmbeddedPostgres
) -> None:
    await world.connect()
    token = (await world.token()).json()["access_token"]
    await world.rewrite_callers({"calendar-sync": stanza(world.key), "other": stanza(new_key())})
    async with database_unavailable(world, postgres):
        answer = await world.token()
    assert answer.status_code == 200, answer.text
    assert answer.json()["access_token"] == token


async def test_an_added_key_gets_the_cached_tokens_too(
    world: World, postgres: EmbeddedPostgres
) -> None:
    await world.connect()
    token = (await world.token()).json()["access_token"]
    old, new = world.key, new_key()
    keys = [*stanza(old)["keys"], *stanza(new)["keys"]]
    await world.rewrite_callers({"calendar-sync": stanza(old, keys=keys)})
    async with database_unavailable(world, postgres):
        for key in (old, new):
            world.key = key
            assert (await world.token()).json()["access_token"] == token


async def test_a_replaced_key_gets_no_cached_token(world: World) -> None:
    await world.connect()
    assert (await world.token()).status_code == 200
    await world.rewrite_callers({"calendar-sync": stanza(new_key())})
    assert (await world.token()).status_code == 401


async def test_a_narrowed_policy_invalidates_the_cached_tokens(world: World) -> None:
    await world.connect()
    assert (await world.token()).status_code == 200
    await world.rewrite_callers({"calendar-sync": stanza(world.key, users=["someone-else"])})
    assert (await world.token()).status_code == 403
