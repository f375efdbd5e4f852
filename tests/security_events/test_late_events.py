"""A `tokens-revoked` that may concern an earlier consent causes a refresh, and erases nothing."""

from datetime import timedelta
from typing import Any

import pytest

from broker.security_events.decisions import CLOCK_TOLERANCE, MAX_SIGNING_DELAY
from devstack.google_standin import Fault
from tests.support.probes import audited
from tests.support.scopes import CALENDAR, CALENDAR_READONLY
from tests.support.security_events import seconds, send_event, state
from tests.support.waiting import eventually
from tests.support.world import ADA, World

ACTIVE = ("user-1", "active", None, True)
REVOKED = ("user-1", "reauthorization_required", "google_tokens_revoked", False)


async def revoke_and_wait_for_google(world: World, user_id: str = "user-1") -> None:
    """Revoke, and wait until the revocation was sent: Google may send an event about it."""
    assert (await world.revoke(user_id)).status_code == 204

    async def is_sent() -> bool:
        return not await world.sql("SELECT 1 FROM pending_revocations")

    await eventually(is_sent)


async def connect_after_a_revocation(world: World, *, here: bool) -> None:
    await world.connect()
    world.clock.advance(timedelta(minutes=5))
    if here:
        await revoke_and_wait_for_google(world)
    else:
        world.standin.revoke_account(ADA)
    world.clock.advance(timedelta(seconds=5))
    await world.connect()
    assert (await world.token()).status_code == 200


@pytest.mark.parametrize("here", [True, False], ids=["revoked here", "revoked at Google"])
@pytest.mark.parametrize("late", [timedelta(0), timedelta(seconds=10), timedelta(minutes=50)])
async def test_a_late_event_spares_a_grant_made_after_the_revocation(
    world: World, late: timedelta, *, here: bool
) -> None:
    await connect_after_a_revocation(world, here=here)
    world.clock.advance(late)
    refreshes = world.refreshes_at_google()
    await send_event(world, "tokens-revoked")
    assert await state(world) == [ACTIVE]
    assert await world.sql("SELECT * FROM access_tokens") == []
    assert await audited(world, "security_event", "tokens-revoked:asked_anew")
    assert (await world.token()).status_code == 200
    assert world.refreshes_at_google() == refreshes + 1


async def test_if_the_event_concerned_the_new_grant_the_refresh_reveals_it(
    world: World,
) -> None:
    await connect_after_a_revocation(world, here=True)
    world.standin.revoke_account(ADA)
    await send_event(world, "tokens-revoked")
    assert (await world.token()).json()["code"] == "reauthorization_required"


@pytest.mark.parametrize("here", [True, False], ids=["revoked here", "revoked at Google"])
async def test_the_time_of_a_dated_event_decides(world: World, *, here: bool) -> None:
    await connect_after_a_revocation(world, here=here)
    consented = seconds(world)
    world.clock.advance(CLOCK_TOLERANCE * 2)
    await send_event(world, "tokens-revoked", claims={"toe": consented - 5})
    assert await state(world) == [ACTIVE]
    await send_event(world, "tokens-revoked", claims={"toe": consented + 90})
    assert await state(world) == [REVOKED]


@pytest.mark.parametrize("toe", [None, "yesterday", 10**30, True, [1]])
async def test_an_invalid_toe_is_ignored(world: World, toe: Any) -> None:
    await connect_after_a_revocation(world, here=True)
    world.clock.advance(CLOCK_TOLERANCE * 2)
    await send_event(world, "tokens-revoked", claims={"toe": toe})
    assert await state(world) == [ACTIVE]


async def test_a_toe_after_the_signature_is_ignored(world: World) -> None:
    await connect_after_a_revocation(world, here=True)
    world.clock.advance(CLOCK_TOLERANCE * 2)
    await send_event(world, "tokens-revoked", claims={"toe": seconds(world) + 60})
    assert await state(world) == [ACTIVE]


async def test_an_event_of_months_ago_does_not_concern_a_later_consent(
    world: World,
) -> None:
    world.clock.advance(timedelta(days=100))
    await world.connect()
    world.clock.advance(timedelta(days=2))
    await send_event(world, "tokens-revoked", claims={"toe": seconds(world) - 90 * 86_400})
    assert await state(world) == [ACTIVE]


async def test_long_after_the_reconnection_the_event_concerns_the_new_grant(world: World) -> None:
    await connect_after_a_revocation(world, here=True)
    world.clock.advance(MAX_SIGNING_DELAY)
    await send_event(world, "tokens-revoked")
    assert await state(world) == [REVOKED]


async def test_an_older_grant_is_erased_and_the_new_one_is_refreshed(world: World) -> None:
    """Two users share one account: the older grant ends with the event."""
    await world.connect("user-0")
    world.clock.advance(MAX_SIGNING_DELAY * 2)
    await connect_after_a_revocation(world, here=False)
    await send_event(world, "tokens-revoked")
    assert await state(world) == [("user-0", *REVOKED[1:]), ACTIVE]


async def test_an_event_after_each_reconnection_erases_each_grant(world: World) -> None:
    for _ in range(3):
        await world.connect()
        await send_event(world, "tokens-revoked")
        assert await state(world) == [REVOKED]
        world.clock.advance(timedelta(seconds=5))


@pytest.mark.parametrize("here", [True, False], ids=["revoked here", "revoked at Google"])
async def test_a_pending_consent_made_after_the_revocation_is_spared(
    world: World, *, here: bool
) -> None:
    await world.connect()
    world.clock.advance(timedelta(minutes=5))
    if here:
        await revoke_and_wait_for_google(world)
    else:
        world.standin.revoke_account(ADA)
    world.clock.advance(timedelta(seconds=5))
    consent = await world.connect_pending(scopes=[CALENDAR, CALENDAR_READONLY])
    world.clock.advance(timedelta(seconds=10))
    await send_event(world, "tokens-revoked")
    refreshes = world.refreshes_at_google()
    assert (await world.confirm(consent)).status_code == 200
    assert (await world.token()).status_code == 200
    assert world.refreshes_at_google() == refreshes + 1


async def test_a_second_pending_consent_made_after_the_revocation_is_spared(
    world: World,
) -> None:
    """Only the event reports that the first consent's token was revoked at Google."""
    await world.connect_pending(scopes=[CALENDAR])
    world.standin.revoke_account(ADA)
    world.clock.advance(timedelta(seconds=5))
    consent = await world.connect_pending(scopes=[CALENDAR])
    world.clock.advance(timedelta(seconds=10))
    await send_event(world, "tokens-revoked")
    assert (await world.confirm(consent)).status_code == 200
    assert (await world.token(scope=CALENDAR)).status_code == 200


async def test_hijacking_erases_even_the_newest_grant(
    world: World,
) -> None:
    """The attacker may have made it."""
    await connect_after_a_revocation(world, here=True)
    await send_event(world, "account-disabled", payload={"reason": "hijacking"})
    assert (await state(world))[0][2] == "google_account_hijacked"


HIJACKING = {"reason": "hijacking"}


async def test_resuming_a_grant_does_not_make_it_newer_than_a_late_hijacking(world: World) -> None:
    await world.connect()
    world.clock.advance(timedelta(minutes=5))
    hijacked_at = seconds(world)
    world.clock.advance(timedelta(minutes=5))
    await send_event(world, "account-disabled", payload={"reason": "bulk-account"})
    world.clock.advance(timedelta(minutes=5))
    await send_event(world, "account-enabled")
    assert await state(world) == [ACTIVE]
    await send_event(world, "account-disabled", payload=HIJACKING, claims={"iat": hijacked_at})
    assert (await state(world))[0][2] == "google_account_hijacked"


async def test_a_rotated_refresh_token_does_not_make_a_grant_newer(world: World) -> None:
    await world.connect()
    world.clock.advance(timedelta(minutes=55))
    hijacked_at = seconds(world)
    world.clock.advance(timedelta(minutes=10))
    world.standin.faults.next("token", Fault.rotate_refresh_token())
    assert (await world.token()).status_code == 200
    await send_event(world, "account-disabled", payload=HIJACKING, claims={"iat": hijacked_at})
    assert (await state(world))[0][2] == "google_account_hijacked"


async def test_a_late_confirmation_does_not_make_a_consent_newer(
    world: World,
) -> None:
    consent = await world.connect_pending()
    world.clock.advance(timedelta(minutes=2))
    hijacked_at = seconds(world)
    world.clock.advance(timedelta(minutes=2))
    assert (await world.confirm(consent)).status_code == 200
    await send_event(world, "account-disabled", payload=HIJACKING, claims={"iat": hijacked_at})
    assert (await state(world))[0][2] == "google_account_hijacked"


async def test_adding_an_older_consent_does_not_make_a_grant_older(
    world: World,
) -> None:
    consent = await world.connect_pending(scopes=[CALENDAR])
    world.clock.advance(timedelta(minutes=2))
    hijacked_at = seconds(world)
    world.clock.advance(timedelta(minutes=2))
    await world.connect(scopes=[CALENDAR_READONLY])
    assert (await world.confirm(consent)).status_code == 200
    await send_event(world, "account-disabled", payload=HIJACKING, claims={"iat": hijacked_at})
    assert await state(world) == [ACTIVE]
