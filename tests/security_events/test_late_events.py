"""A `tokens-revoked` that may be about an earlier consent has Google asked, and erases nothing."""

from datetime import timedelta
from typing import Any

import pytest

from broker.security_events.bearing import CLOCKS_APART, SIGNED_LATE
from devstack.google_standin import Fault
from tests.security.probes import audited
from tests.security_events.events import seconds, state, tell
from tests.support.waiting import eventually
from tests.support.world import ADA, CALENDAR, CALENDAR_READONLY, World

ACTIVE = ("user-1", "active", None, True)
REVOKED = ("user-1", "reauthorization_required", "google_tokens_revoked", False)


async def revoke_and_wait(world: World, user_id: str = "user-1") -> None:
    """Withdraw here, and let Google be told: it may well tell back."""
    assert (await world.revoke(user_id)).status_code == 204

    async def is_told() -> bool:
        return not await world.sql("SELECT 1 FROM pending_revocations")

    await eventually(is_told)


async def connect_after_a_withdrawal(world: World, *, here: bool) -> None:
    await world.connect()
    world.clock.advance(timedelta(minutes=5))
    if here:
        await revoke_and_wait(world)
    else:
        world.standin.revoke_account(ADA)
    world.clock.advance(timedelta(seconds=5))
    await world.connect()
    assert (await world.token()).status_code == 200


@pytest.mark.parametrize("here", [True, False], ids=["withdrawn here", "withdrawn at Google"])
@pytest.mark.parametrize("late", [timedelta(0), timedelta(seconds=10), timedelta(minutes=50)])
async def test_a_late_event_spares_the_grant_that_came_after_the_withdrawal(
    world: World, late: timedelta, *, here: bool
) -> None:
    await connect_after_a_withdrawal(world, here=here)
    world.clock.advance(late)
    refreshes = world.refreshes_at_google()
    await tell(world, "tokens-revoked")
    assert await state(world) == [ACTIVE]
    assert await world.sql("SELECT * FROM access_tokens") == []
    assert await audited(world, "security_event", "tokens-revoked:asked_anew")
    assert (await world.token()).status_code == 200
    assert world.refreshes_at_google() == refreshes + 1


async def test_if_the_event_was_about_the_new_grant_googles_next_answer_says_so(
    world: World,
) -> None:
    await connect_after_a_withdrawal(world, here=True)
    world.standin.revoke_account(ADA)
    await tell(world, "tokens-revoked")
    assert (await world.token()).json()["code"] == "reauthorization_required"


@pytest.mark.parametrize("here", [True, False], ids=["withdrawn here", "withdrawn at Google"])
async def test_an_event_that_says_when_it_took_place_is_believed(
    world: World, *, here: bool
) -> None:
    await connect_after_a_withdrawal(world, here=here)
    consented = seconds(world)
    world.clock.advance(CLOCKS_APART * 2)
    await tell(world, "tokens-revoked", claims={"toe": consented - 5})
    assert await state(world) == [ACTIVE]
    await tell(world, "tokens-revoked", claims={"toe": consented + 90})
    assert await state(world) == [REVOKED]


@pytest.mark.parametrize("toe", [None, "yesterday", 10**30, True, [1]])
async def test_a_toe_that_can_t_be_believed_counts_as_none(world: World, toe: Any) -> None:
    await connect_after_a_withdrawal(world, here=True)
    world.clock.advance(CLOCKS_APART * 2)
    await tell(world, "tokens-revoked", claims={"toe": toe})
    assert await state(world) == [ACTIVE]


async def test_a_toe_after_the_signature_counts_as_none(world: World) -> None:
    await connect_after_a_withdrawal(world, here=True)
    world.clock.advance(CLOCKS_APART * 2)
    await tell(world, "tokens-revoked", claims={"toe": seconds(world) + 60})
    assert await state(world) == [ACTIVE]


async def test_what_took_place_months_ago_is_not_held_against_a_later_consent(
    world: World,
) -> None:
    world.clock.advance(timedelta(days=100))
    await world.connect()
    world.clock.advance(timedelta(days=2))
    await tell(world, "tokens-revoked", claims={"toe": seconds(world) - 90 * 86_400})
    assert await state(world) == [ACTIVE]


async def test_long_after_the_reconnection_the_event_is_about_what_is_held(world: World) -> None:
    await connect_after_a_withdrawal(world, here=True)
    world.clock.advance(SIGNED_LATE)
    await tell(world, "tokens-revoked")
    assert await state(world) == [REVOKED]


async def test_a_grant_of_before_is_erased_while_the_new_one_is_asked_about(world: World) -> None:
    """Two users, one account: what was connected long before the end is over with it."""
    await world.connect("user-0")
    world.clock.advance(SIGNED_LATE * 2)
    await connect_after_a_withdrawal(world, here=False)
    await tell(world, "tokens-revoked")
    assert await state(world) == [("user-0", *REVOKED[1:]), ACTIVE]


async def test_an_end_that_was_told_is_not_taken_for_another_twice(world: World) -> None:
    for _ in range(3):
        await world.connect()
        await tell(world, "tokens-revoked")
        assert await state(world) == [REVOKED]
        world.clock.advance(timedelta(seconds=5))


@pytest.mark.parametrize("here", [True, False], ids=["withdrawn here", "withdrawn at Google"])
async def test_a_waiting_consent_after_a_withdrawal_is_spared_too(
    world: World, *, here: bool
) -> None:
    await world.connect()
    world.clock.advance(timedelta(minutes=5))
    if here:
        await revoke_and_wait(world)
    else:
        world.standin.revoke_account(ADA)
    world.clock.advance(timedelta(seconds=5))
    trip = await world.connect_unconfirmed(scopes=[CALENDAR, CALENDAR_READONLY])
    world.clock.advance(timedelta(seconds=10))
    await tell(world, "tokens-revoked")
    refreshes = world.refreshes_at_google()
    assert (await world.confirm(trip)).status_code == 200
    assert (await world.token()).status_code == 200
    assert world.refreshes_at_google() == refreshes + 1


async def test_a_consent_that_waits_twice_is_spared_after_a_withdrawal_between(
    world: World,
) -> None:
    """The first one's token is gone at Google, and nothing but the event says so."""
    await world.connect_unconfirmed(scopes=[CALENDAR])
    world.standin.revoke_account(ADA)
    world.clock.advance(timedelta(seconds=5))
    trip = await world.connect_unconfirmed(scopes=[CALENDAR])
    world.clock.advance(timedelta(seconds=10))
    await tell(world, "tokens-revoked")
    assert (await world.confirm(trip)).status_code == 200
    assert (await world.token(scope=CALENDAR)).status_code == 200


async def test_of_a_hijacked_account_the_newest_connection_is_erased_all_the_same(
    world: World,
) -> None:
    """It may have been the intruder's."""
    await connect_after_a_withdrawal(world, here=True)
    await tell(world, "account-disabled", payload={"reason": "hijacking"})
    assert (await state(world))[0][2] == "google_account_hijacked"


HIJACKING = {"reason": "hijacking"}


async def test_what_was_brought_back_since_is_no_newer_for_a_late_hijacking(world: World) -> None:
    await world.connect()
    world.clock.advance(timedelta(minutes=5))
    taken_over = seconds(world)
    world.clock.advance(timedelta(minutes=5))
    await tell(world, "account-disabled", payload={"reason": "bulk-account"})
    world.clock.advance(timedelta(minutes=5))
    await tell(world, "account-enabled")
    assert await state(world) == [ACTIVE]
    await tell(world, "account-disabled", payload=HIJACKING, claims={"iat": taken_over})
    assert (await state(world))[0][2] == "google_account_hijacked"


async def test_a_refresh_token_that_was_replaced_since_makes_no_grant_newer(world: World) -> None:
    await world.connect()
    world.clock.advance(timedelta(minutes=55))
    taken_over = seconds(world)
    world.clock.advance(timedelta(minutes=10))
    world.standin.faults.next("token", Fault.rotate_refresh_token())
    assert (await world.token()).status_code == 200
    await tell(world, "account-disabled", payload=HIJACKING, claims={"iat": taken_over})
    assert (await state(world))[0][2] == "google_account_hijacked"


async def test_a_consent_is_as_old_as_it_was_given_however_late_it_was_confirmed(
    world: World,
) -> None:
    trip = await world.connect_unconfirmed()
    world.clock.advance(timedelta(minutes=2))
    taken_over = seconds(world)
    world.clock.advance(timedelta(minutes=2))
    assert (await world.confirm(trip)).status_code == 200
    await tell(world, "account-disabled", payload=HIJACKING, claims={"iat": taken_over})
    assert (await state(world))[0][2] == "google_account_hijacked"


async def test_a_later_consent_that_an_older_one_was_added_to_stays_the_later(
    world: World,
) -> None:
    trip = await world.connect_unconfirmed(scopes=[CALENDAR])
    world.clock.advance(timedelta(minutes=2))
    taken_over = seconds(world)
    world.clock.advance(timedelta(minutes=2))
    await world.connect(scopes=[CALENDAR_READONLY])
    assert (await world.confirm(trip)).status_code == 200
    await tell(world, "account-disabled", payload=HIJACKING, claims={"iat": taken_over})
    assert await state(world) == [ACTIVE]
