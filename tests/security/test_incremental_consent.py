"""A grant's refresh token covers the scopes that the grant states, however it was made."""

from datetime import timedelta

import pytest

from devstack.google_standin import Fault
from tests.support.probes import query_of
from tests.support.scopes import CALENDAR, CALENDAR_READONLY
from tests.support.world import ADA, World


async def test_scopes_added_later_can_be_refreshed(world: World) -> None:
    await world.connect(scopes=[CALENDAR_READONLY])
    await world.connect(scopes=[CALENDAR], login_hint=ADA)
    world.clock.advance(timedelta(hours=1))
    for scope in (CALENDAR, CALENDAR_READONLY):
        answer = await world.token(scope=scope)
        assert (answer.status_code, answer.json().get("scope")) == (200, scope)


async def _connect_missing_scopes(world: World, **body: str) -> None:
    """Connect with a link for exactly the missing scopes of a refusal."""
    refused = (await world.token(scope=f"{CALENDAR} {CALENDAR_READONLY}")).json()
    assert (refused["code"], refused["missing"]) == ("scope_not_granted", [CALENDAR])
    async with world.browser() as browser:
        address = await world.start_consent(browser, scopes=refused["missing"], **body)
        answer = await browser.get(world.standin.consent(address, ADA))
        if answer.status_code == 303:
            # A second request to Google for the scopes that would have been lost.
            again = query_of(answer.headers["location"])
            assert {CALENDAR, CALENDAR_READONLY} <= set(again["scope"].split())
            assert again["login_hint"] == world.standin.account(ADA).sub
            assert again["prompt"] == "consent"
            answer = await browser.get(world.standin.consent(answer.headers["location"], ADA))
        assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("includes_granted", [True, False])
@pytest.mark.parametrize("hinted", [True, False])
async def test_check_31_a_link_for_the_missing_scopes_extends_the_same_grant(
    world: World, includes_granted: bool, hinted: bool
) -> None:
    """Also with a server that ignores `include_granted_scopes`."""
    world.standin.behave(includes_granted=includes_granted)
    await world.connect(scopes=[CALENDAR_READONLY])
    (before,) = await world.sql("SELECT * FROM grants")
    await _connect_missing_scopes(world, **({"login_hint": ADA} if hinted else {}))
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


async def test_an_earlier_scope_that_the_user_unticks_is_removed_and_reported(
    world: World,
) -> None:
    """The person saw the scope on Google's page, and unticked it."""
    world.standin.behave(includes_granted=False)
    await world.connect(scopes=[CALENDAR_READONLY])
    consent = await world.connect(scopes=[CALENDAR], login_hint=ADA, untick=[CALENDAR_READONLY])
    assert "with fewer permissions" in consent.response.text
    (grant,) = await world.grants()
    assert CALENDAR_READONLY not in grant["scopes"]
    assert (await world.token(scope=CALENDAR_READONLY)).json()["missing"] == [CALENDAR_READONLY]
    assert (await world.token(scope=CALENDAR)).status_code == 200


async def test_a_denied_second_consent_leaves_the_grant_unchanged(
    world: World,
) -> None:
    world.standin.behave(includes_granted=False)
    await world.connect(scopes=[CALENDAR_READONLY])
    before = await world.sql("SELECT * FROM grants")
    async with world.browser() as browser:
        address = await world.start_consent(browser, scopes=[CALENDAR])
        again = await browser.get(world.standin.consent(address, ADA))
        denied = world.standin.consent(again.headers["location"], ADA, deny=True)
        assert "You did not allow" in (await browser.get(denied)).text
    assert await world.sql("SELECT * FROM grants") == before
    world.clock.advance(timedelta(hours=1))
    assert (await world.token(scope=CALENDAR_READONLY)).status_code == 200


async def test_check_10_granted_scopes_that_are_not_configured_are_not_requested_again(
    world: World,
) -> None:
    """Google may have more scopes of the account than the broker, through another client."""
    await world.connect(scopes=[CALENDAR_READONLY])
    await world.sql("UPDATE grants SET scopes = scopes || 'https://mail.google.com/'::text")
    async with world.browser() as browser:
        address = await world.start_consent(browser, scopes=[CALENDAR], login_hint=ADA)
    assert "mail.google" not in address
