"""What an account allowed elsewhere, Google adds to each answer: it counts for no other user."""

import pytest

from tests.support.world import CALENDAR, CALENDAR_READONLY, World

OTHER = "user-2"


async def _scopes(world: World, user_id: str) -> set[str]:
    (grant,) = [g for g in await world.grants(user_id) if g["status"] != "revoked"]
    return set(grant["scopes"])


@pytest.mark.parametrize("is_confirmed", [False, True])
async def test_check_31_what_an_account_allowed_another_user_is_no_right_of_this_one(
    world: World, is_confirmed: bool
) -> None:
    await world.connect(scopes=[CALENDAR])
    if is_confirmed:
        trip = await world.connect_unconfirmed(OTHER, scopes=[CALENDAR_READONLY])
        assert (await world.confirm(trip)).status_code == 200
    else:
        await world.connect(OTHER, scopes=[CALENDAR_READONLY])
    scopes = await _scopes(world, OTHER)
    assert (CALENDAR_READONLY in scopes, CALENDAR in scopes) == (True, False)
    refused = await world.token(OTHER, scope=CALENDAR)
    assert (refused.status_code, refused.json()["missing"]) == (409, [CALENDAR])
    answer = (await world.token(OTHER)).json()
    assert CALENDAR not in answer["scope"].split()
    token = world.standin.state.access_tokens[answer["access_token"]]
    assert CALENDAR not in token.scopes
    assert CALENDAR in await _scopes(world, "user-1")


async def test_what_was_withdrawn_comes_back_only_by_being_asked_for(world: World) -> None:
    """Google was not told of the withdrawal, because of the other user, and adds it still."""
    await world.connect(OTHER, scopes=[CALENDAR])
    await world.connect(scopes=[CALENDAR])
    await world.revoke()
    await world.connect(scopes=[CALENDAR_READONLY])
    assert CALENDAR not in await _scopes(world, "user-1")


async def test_a_broken_grant_keeps_what_its_user_was_asked_for_before(world: World) -> None:
    await world.connect(OTHER, scopes=[CALENDAR])
    await world.connect(scopes=[CALENDAR])
    await world.sql(
        "UPDATE grants SET status = 'reauthorization_required' WHERE user_id = $1", "user-1"
    )
    await world.connect(scopes=[CALENDAR_READONLY])
    assert {CALENDAR, CALENDAR_READONLY} <= await _scopes(world, "user-1")


async def test_of_two_links_that_wait_each_adds_its_own(world: World) -> None:
    first = await world.connect_unconfirmed(scopes=[CALENDAR])
    second = await world.connect_unconfirmed(scopes=[CALENDAR_READONLY])
    for trip in (first, second):
        assert (await world.confirm(trip)).status_code == 200
    assert {CALENDAR, CALENDAR_READONLY} <= await _scopes(world, "user-1")
