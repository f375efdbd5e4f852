"""A token is not returned after its grant ended, wherever it was cached."""

from datetime import timedelta
from typing import Any

from devstack.google_standin import Fault
from tests.support.scopes import CALENDAR, CALENDAR_READONLY
from tests.support.world import World


async def test_a_replaced_token_does_not_survive_a_revocation(world: World) -> None:
    await world.connect()
    assert (await world.token()).status_code == 200
    world.clock.advance(timedelta(minutes=10))
    assert (await world.token(min_ttl=86_400)).status_code == 200
    assert (await world.revoke()).status_code == 204
    assert (await world.token()).json()["code"] == "grant_not_found"


async def test_no_form_of_a_request_returns_a_token_after_a_revocation(
    world: World,
) -> None:
    await world.connect(scopes=[CALENDAR, CALENDAR_READONLY])
    questions: list[dict[str, Any]] = [
        {},
        {"min_ttl": 1},
        {"scope": CALENDAR_READONLY},
        {"scope": f"{CALENDAR} {CALENDAR_READONLY}"},
        {"scope": f"{CALENDAR_READONLY} {CALENDAR}"},
        {"account": (await world.grants())[0]["account"]["sub"]},
    ]
    for _ in range(2):
        for question in questions:
            assert (await world.token(**question)).status_code == 200
        world.clock.advance(timedelta(minutes=59, seconds=30))
    await world.revoke()
    assert {(await world.token(**question)).status_code for question in questions} == {404}


async def test_a_cached_token_is_not_returned_after_google_revoked_the_grant(
    world: World,
) -> None:
    await world.connect()
    assert (await world.token()).status_code == 200
    world.clock.advance(timedelta(minutes=10))
    world.standin.faults.next("token", Fault.invalid_grant())
    assert (await world.token(min_ttl=86_400)).status_code == 409
    assert (await world.token()).json()["code"] == "reauthorization_required"
