"""What was handed out before a grant ended is not handed out after, however it was held."""

from datetime import timedelta
from typing import Any

from devstack.google_standin import Fault
from tests.support.world import CALENDAR, CALENDAR_READONLY, World


async def test_a_token_that_another_replaced_does_not_outlive_a_revocation(world: World) -> None:
    await world.connect()
    assert (await world.token()).status_code == 200
    world.clock.advance(timedelta(minutes=10))
    assert (await world.token(min_ttl=86_400)).status_code == 200
    assert (await world.revoke()).status_code == 204
    assert (await world.token()).json()["code"] == "grant_not_found"


async def test_no_question_of_whichever_wording_is_answered_after_a_revocation(
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


async def test_a_token_held_from_before_is_not_handed_out_once_google_ended_the_grant(
    world: World,
) -> None:
    await world.connect()
    assert (await world.token()).status_code == 200
    world.clock.advance(timedelta(minutes=10))
    world.standin.faults.next("token", Fault.invalid_grant())
    assert (await world.token(min_ttl=86_400)).status_code == 409
    assert (await world.token()).json()["code"] == "reauthorization_required"
