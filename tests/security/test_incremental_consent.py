"""What a grant says that it holds, its refresh token can fetch, however it came to be."""

from datetime import timedelta

import pytest

from devstack.google_standin import Fault
from tests.security.probes import departed, query_of
from tests.support.world import ADA, CALENDAR, CALENDAR_READONLY, World


async def test_scopes_added_later_can_be_refreshed(world: World) -> None:
    await world.connect(scopes=[CALENDAR_READONLY])
    await world.connect(scopes=[CALENDAR], login_hint=ADA)
    world.clock.advance(timedelta(hours=1))
    for scope in (CALENDAR, CALENDAR_READONLY):
        answer = await world.token(scope=scope)
        assert (answer.status_code, answer.json().get("scope")) == (200, scope)


async def _connect_what_is_missing(world: World, **body: str) -> None:
    """Do as the refusal says: a link for exactly what is missing, followed to its end."""
    refused = (await world.token(scope=f"{CALENDAR} {CALENDAR_READONLY}")).json()
    assert (refused["code"], refused["missing"]) == ("scope_not_granted", [CALENDAR])
    async with world.browser() as browser:
        address = await departed(world, browser, scopes=refused["missing"], **body)
        answer = await browser.get(world.standin.consent(address, ADA))
        if answer.status_code == 303:
            # Google is asked once more, for what would have got lost.
            again = query_of(answer.headers["location"])
            assert {CALENDAR, CALENDAR_READONLY} <= set(again["scope"].split())
            assert again["login_hint"] == world.standin.account(ADA).sub
            assert again["prompt"] == "consent"
            answer = await browser.get(world.standin.consent(answer.headers["location"], ADA))
        assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("includes_granted", [True, False])
@pytest.mark.parametrize("hinted", [True, False])
async def test_check_31_a_link_for_what_is_missing_continues_the_same_grant(
    world: World, includes_granted: bool, hinted: bool
) -> None:
    """Also at a server that does not heed `include_granted_scopes`."""
    world.standin.behave(includes_granted=includes_granted)
    await world.connect(scopes=[CALENDAR_READONLY])
    (before,) = await world.sql("SELECT * FROM grants")
    await _connect_what_is_missing(world, **({"login_hint": ADA} if hinted else {}))
    (after,) = await world.sql("SELECT * FROM grants")
    assert (after["id"], after["connected_at"]) == (before["id"], before["connected_at"])
    assert {*before["scopes"], CALENDAR} == set(after["scopes"])
    world.clock.advance(timedelta(hours=1))
    for scope in (CALENDAR, CALENDAR_READONLY, f"{CALENDAR} {CALENDAR_READONLY}"):
        assert (await world.token(scope=scope)).status_code == 200, scope


async def test_check_37_a_refresh_token_that_google_leaves_out_is_kept(world: World) -> None:
    await world.connect(scopes=[CALENDAR_READONLY])
    (before,) = await world.sql("SELECT sealed_refresh_token FROM grants")
    world.standin.faults.next("token", Fault.without("refresh_token"))
    await world.connect(scopes=[CALENDAR], login_hint=ADA)
    (after,) = await world.sql("SELECT sealed_refresh_token, scopes FROM grants")
    assert after["sealed_refresh_token"] == before["sealed_refresh_token"]
    assert {CALENDAR, CALENDAR_READONLY} <= set(after["scopes"])


async def test_an_earlier_right_that_is_taken_back_when_asked_is_gone_and_told(
    world: World,
) -> None:
    """Not silently: the person saw it on Google's page, and unticked it."""
    world.standin.behave(includes_granted=False)
    await world.connect(scopes=[CALENDAR_READONLY])
    trip = await world.connect(scopes=[CALENDAR], login_hint=ADA, untick=[CALENDAR_READONLY])
    assert "with fewer permissions" in trip.response.text
    (grant,) = await world.grants()
    assert CALENDAR_READONLY not in grant["scopes"]
    assert (await world.token(scope=CALENDAR_READONLY)).json()["missing"] == [CALENDAR_READONLY]
    assert (await world.token(scope=CALENDAR)).status_code == 200


async def test_a_second_question_that_is_declined_leaves_the_grant_as_it_was(
    world: World,
) -> None:
    world.standin.behave(includes_granted=False)
    await world.connect(scopes=[CALENDAR_READONLY])
    before = await world.sql("SELECT * FROM grants")
    async with world.browser() as browser:
        address = await departed(world, browser, scopes=[CALENDAR])
        again = await browser.get(world.standin.consent(address, ADA))
        denied = world.standin.consent(again.headers["location"], ADA, deny=True)
        assert "You did not allow" in (await browser.get(denied)).text
    assert await world.sql("SELECT * FROM grants") == before
    world.clock.advance(timedelta(hours=1))
    assert (await world.token(scope=CALENDAR_READONLY)).status_code == 200


async def test_check_10_rights_that_no_link_may_ask_for_are_not_asked_for_again(
    world: World,
) -> None:
    """Google's own list may hold more than this broker's, through another client."""
    await world.connect(scopes=[CALENDAR_READONLY])
    await world.sql("UPDATE grants SET scopes = scopes || 'https://mail.google.com/'::text")
    async with world.browser() as browser:
        address = await departed(world, browser, scopes=[CALENDAR], login_hint=ADA)
    assert "mail.google" not in address
