"""What a reload of the callers file means to the tokens that are held for its callers."""

from broker.callers.keys import new_key
from devstack.postgres import EmbeddedPostgres
from tests.support.outages import database_away
from tests.support.world import World, stanza


async def test_a_caller_that_is_added_costs_no_other_its_held_tokens(
    world: World, postgres: EmbeddedPostgres
) -> None:
    await world.connect()
    token = (await world.token()).json()["access_token"]
    await world.rewrite_callers({"calendar-sync": stanza(world.key), "other": stanza(new_key())})
    async with database_away(world, postgres):
        answer = await world.token()
    assert answer.status_code == 200, answer.text
    assert answer.json()["access_token"] == token


async def test_a_key_that_is_added_leaves_the_held_tokens_to_both(
    world: World, postgres: EmbeddedPostgres
) -> None:
    await world.connect()
    token = (await world.token()).json()["access_token"]
    old, new = world.key, new_key()
    keys = [*stanza(old)["keys"], *stanza(new)["keys"]]
    await world.rewrite_callers({"calendar-sync": stanza(old, keys=keys)})
    async with database_away(world, postgres):
        for key in (old, new):
            world.key = key
            assert (await world.token()).json()["access_token"] == token


async def test_a_key_that_is_replaced_gets_no_held_token(world: World) -> None:
    await world.connect()
    assert (await world.token()).status_code == 200
    await world.rewrite_callers({"calendar-sync": stanza(new_key())})
    assert (await world.token()).status_code == 401


async def test_a_policy_that_is_narrowed_voids_what_was_held_under_it(world: World) -> None:
    await world.connect()
    assert (await world.token()).status_code == 200
    await world.rewrite_callers({"calendar-sync": stanza(world.key, users=["someone-else"])})
    assert (await world.token()).status_code == 403
