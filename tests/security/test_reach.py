"""What an account allowed elsewhere, Google adds to each answer: it counts for no other user."""

import asyncio
import logging
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from broker.callers.keys import new_key
from broker.consent.reach import Reach
from broker.consent.store import Trip as StoredTrip
from broker.grants.lookups import TokenLookups
from broker.grants.pending.store import CONFIRMATION_LIFE
from broker.grants.store import Consent
from broker.ops import upkeep
from broker.secret import Secret
from devstack.google_standin import GoogleStandin
from tests.security.probes import about_to_return
from tests.support.clock import ManualClock
from tests.support.waiting import eventually
from tests.support.world import (
    CALENDAR,
    CALENDAR_READONLY,
    RETURN_TO,
    Trip,
    World,
    open_world,
    stanza,
)

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


async def test_what_is_left_out_is_logged_once_by_name(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="broker.consent.reach"):
        await world.connect(scopes=[CALENDAR])
        assert not caplog.records
        await world.connect(OTHER, scopes=[CALENDAR_READONLY])
    (record,) = [each for each in caplog.records if each.name == "broker.consent.reach"]
    assert record.__dict__["scopes"] == CALENDAR
    assert OTHER not in str(record.__dict__)


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


async def _assert_not_granted(world: World, code: str = "scope_not_granted") -> None:
    """It is no right of the user's, nor of any token."""
    refused = await world.token(scope=CALENDAR)
    assert (refused.status_code, refused.json()["code"]) == (409, code)
    answer = (await world.token()).json()
    assert CALENDAR not in answer["scope"].split()
    assert CALENDAR not in world.standin.state.access_tokens[answer["access_token"]].scopes
    (row,) = await world.sql("SELECT scopes FROM grants")
    assert CALENDAR not in row["scopes"]


async def _assert_fetches_both(world: World) -> None:
    assert {CALENDAR, CALENDAR_READONLY} <= await _scopes(world, "user-1")
    for scope in (CALENDAR, CALENDAR_READONLY, f"{CALENDAR} {CALENDAR_READONLY}"):
        assert (await world.token(scope=scope)).status_code == 200, scope


@pytest.fixture(autouse=True)
def _frequent_upkeep(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is over is swept soon; every fifteen seconds otherwise."""
    monkeypatch.setattr(upkeep, "EVERY_SECONDS", 0.5)


async def test_check_15_what_waits_does_not_come_in_by_a_link_without_confirmation(
    world: World,
) -> None:
    await world.connect_unconfirmed(scopes=[CALENDAR])
    await world.connect(scopes=[CALENDAR_READONLY])
    await _assert_not_granted(world, "confirmation_pending")
    world.clock.advance(CONFIRMATION_LIFE)

    async def is_swept() -> bool:
        return not await world.sql("SELECT 1 FROM pending_consents")

    await eventually(is_swept, seconds=40)
    await _assert_not_granted(world)
    await world.connect(scopes=[CALENDAR_READONLY])
    await _assert_not_granted(world)
    assert world.standin.requests.count("revoke") == 0


async def test_what_is_confirmed_adds_to_what_was_connected_meanwhile(world: World) -> None:
    trip = await world.connect_unconfirmed(scopes=[CALENDAR])
    await world.connect(scopes=[CALENDAR_READONLY])
    newer = Secret(world.standin.issued.refresh_tokens[-1])
    confirmed = await world.confirm(trip)
    assert confirmed.status_code == 200, confirmed.text
    assert {CALENDAR, CALENDAR_READONLY} <= set(confirmed.json()["scopes"])
    await _assert_fetches_both(world)
    (row,) = await world.sql("SELECT * FROM refresh_token_lookups")
    assert row["digest"] == TokenLookups(world.settings.secret_keys).of(newer).digest


async def test_what_waits_for_another_caller_is_not_confirmed_along(
    tmp_path: Path, database_url: str, standin: GoogleStandin, clock: ManualClock
) -> None:
    key = new_key()
    callers = {"other": stanza(key)}
    async with open_world(tmp_path, database_url, standin, clock, callers=callers) as world:
        await world.connect_unconfirmed(scopes=[CALENDAR])
        world.key = key
        trip = await world.connect_unconfirmed(scopes=[CALENDAR_READONLY])
        assert (await world.confirm(trip)).status_code == 200
        await _assert_not_granted(world, "confirmation_pending")


@pytest.mark.parametrize("is_first_first", [True, False])
@pytest.mark.parametrize("is_one_caller", [True, False])
async def test_of_two_that_wait_either_may_be_confirmed_first(
    tmp_path: Path,
    database_url: str,
    standin: GoogleStandin,
    clock: ManualClock,
    is_first_first: bool,
    is_one_caller: bool,
) -> None:
    key = new_key()
    callers = {"other": stanza(key)}
    async with open_world(tmp_path, database_url, standin, clock, callers=callers) as world:
        first_key = world.key
        first = await world.connect_unconfirmed(scopes=[CALENDAR])
        world.key = first_key if is_one_caller else key
        second = await world.connect_unconfirmed(scopes=[CALENDAR_READONLY])
        keyed = [(first, first_key), (second, world.key)]
        for trip, made_by in keyed if is_first_first else reversed(keyed):
            answer = await world.confirm(trip, key=made_by)
            assert answer.status_code == 200, answer.text
        await _assert_fetches_both(world)


@pytest.mark.parametrize("is_confirmed", [False, True])
async def test_what_another_tab_connected_meanwhile_is_kept(
    world: World, monkeypatch: pytest.MonkeyPatch, is_confirmed: bool
) -> None:
    """The answer of this one was judged before that was stored."""
    of, judged, goes_on = Reach.of, asyncio.Event(), asyncio.Event()

    async def held(self: Reach, trip: StoredTrip, consent: Consent) -> Consent:
        reached = await of(self, trip, consent)
        if CALENDAR not in trip.transaction.scopes:
            judged.set()
            await goes_on.wait()
        return reached

    monkeypatch.setattr(Reach, "of", held)
    body: dict[str, Any] = {"confirm": True, "return_to": RETURN_TO} if is_confirmed else {}
    async with (
        about_to_return(world, scopes=[CALENDAR]) as (first, first_callback),
        about_to_return(world, scopes=[CALENDAR_READONLY], **body) as (second, second_callback),
    ):
        returning = asyncio.create_task(second.get(second_callback))
        await asyncio.wait_for(judged.wait(), 10)
        assert (await first.get(first_callback)).status_code == 200
        goes_on.set()
        answer = await returning
    if is_confirmed:
        query = parse_qs(urlsplit(answer.headers["location"]).query)
        assert (await world.confirm(Trip(answer, query["link_id"][0]))).status_code == 200
    await _assert_fetches_both(world)
