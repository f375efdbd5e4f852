"""A consent that meets a revocation which Google is told at that time: it never counts as connected
on what has ended, and leaves nothing alive at Google that nobody holds.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from devstack.google_standin import Fault
from tests.security.probes import about_to_return, audited
from tests.support.waiting import eventually
from tests.support.world import ADA, RETURN_TO, World


async def nothing_to_tell(world: World) -> bool:
    return await world.sql("SELECT 1 FROM pending_revocations") == []


async def nothing_alive(world: World) -> bool:
    """Neither here nor at Google."""
    state = world.standin.state
    with state.lock:
        at_google = list(state.refresh_tokens)
    return not at_google and await nothing_to_tell(world)


@asynccontextmanager
async def told_during_the_exchange(
    world: World, *, exchanged_before: bool, user_id: str = "user-1", **body: Any
) -> AsyncIterator[asyncio.Task[Any]]:
    """A browser comes back with a code; meanwhile `withdrawing` withdraws, and Google is told.

    Gives the browser's answer, once it is let go on at the end.
    """
    await world.connect("withdrawing")
    hold = Fault.hold("exchange", after=exchanged_before)
    async with about_to_return(world, user_id, **body) as (browser, callback):
        world.standin.faults.next("token", hold, grant_type="authorization_code")
        answering = asyncio.create_task(browser.get(callback))
        try:
            await asyncio.to_thread(world.standin.holds.wait_until_held, "exchange")
            told = world.standin.requests.count("revoke")
            await world.revoke("withdrawing")
            await asyncio.to_thread(world.standin.requests.wait_for, "revoke", count=told + 1)
            await eventually(lambda: nothing_to_tell(world))
            yield answering
        finally:
            world.standin.holds.release("exchange")
            await answering


CONFIRMED = {"confirm": True, "return_to": RETURN_TO}


@pytest.mark.parametrize("body", [{"return_to": RETURN_TO}, CONFIRMED], ids=["", "confirmed later"])
async def test_a_consent_whose_authorization_was_ended_since_its_exchange_is_not_connected(
    world: World, body: dict[str, Any]
) -> None:
    async with told_during_the_exchange(world, exchanged_before=True, **body) as answering:
        pass
    assert "status=failed" in (await answering).headers["location"]
    await audited(world, "consent", "failed:revocation_under_way")
    assert await world.grants() == []
    assert (await world.token()).json()["code"] == "grant_not_found"
    await eventually(lambda: nothing_alive(world))


async def test_what_google_gave_to_a_consent_that_is_refused_for_a_revocation_is_ended(
    world: World,
) -> None:
    """Google was told before it exchanged the code: what it gave then is alive."""
    async with told_during_the_exchange(world, exchanged_before=False) as answering:
        pass
    assert "still on its way to Google" in (await answering).text
    assert await world.grants() == []
    await eventually(lambda: nothing_alive(world))
    # And the next try is as good as any.
    trip = await world.connect(return_to=RETURN_TO)
    assert trip.status == "connected"
    assert (await world.token(min_ttl=86_400)).status_code == 200


async def test_a_refused_consent_ends_nothing_of_an_account_that_somebody_holds(
    world: World,
) -> None:
    async with told_during_the_exchange(world, exchanged_before=True) as answering:
        await world.connect("user-2")
    assert "still on its way to Google" in (await answering).text
    assert await nothing_to_tell(world)
    assert (await world.token("user-2", min_ttl=86_400)).status_code == 200


async def test_a_revocation_whose_answer_is_lost_counts_as_told(world: World) -> None:
    """Google carries it out; the broker only knows that it must tell again."""
    await world.connect("withdrawing")
    async with about_to_return(world, return_to=RETURN_TO) as (browser, callback):
        world.standin.faults.next(
            "token", Fault.hold("exchange", after=True), grant_type="authorization_code"
        )
        answering = asyncio.create_task(browser.get(callback))
        await asyncio.to_thread(world.standin.holds.wait_until_held, "exchange")
        world.standin.faults.next("revoke", Fault.half())
        await world.revoke("withdrawing")

        async def is_postponed() -> bool:
            rows = await world.sql(
                "SELECT 1 FROM pending_revocations WHERE attempts = 1 AND claimed_until IS NULL"
            )
            return len(rows) == 1

        await eventually(is_postponed)
        assert world.standin.state.refresh_tokens == {}
        world.standin.holds.release("exchange")
        assert "status=failed" in (await answering).headers["location"]


async def test_a_waiting_consent_whose_authorization_was_ended_before_its_confirmation_is_void(
    world: World,
) -> None:
    """Whoever tells Google stands still for longer than its claim lasts, and then goes on."""
    await world.connect("withdrawing")
    world.standin.faults.next("revoke", Fault.hold("telling"))
    await world.revoke("withdrawing")
    await asyncio.to_thread(world.standin.holds.wait_until_held, "telling")
    world.clock.advance(timedelta(seconds=31))
    trip = await world.connect_unconfirmed()
    world.standin.holds.release("telling")

    async def is_told() -> bool:
        return await world.metric("broker_revocations_total", outcome="told") == 1

    await eventually(is_told)
    answer = await world.confirm(trip)
    assert (answer.status_code, answer.json()["code"]) == (409, "confirmation_invalid")
    assert await world.grants() == []
    await audited(world, "confirmation", "confirmation_invalid:void")


async def test_a_withdrawal_that_was_told_before_the_exchange_stands_in_nobodys_way(
    world: World,
) -> None:
    for _ in range(3):
        trip = await world.connect(return_to=RETURN_TO, account=ADA)
        assert trip.status == "connected"
        await world.revoke()
        await eventually(lambda: nothing_alive(world))
