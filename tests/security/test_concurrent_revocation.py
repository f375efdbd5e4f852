"""A consent concurrent with a revocation at Google is never connected with a revoked token, and
leaves no unused token alive.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from devstack.google_standin import Fault
from tests.support.probes import audited, consent_at_google
from tests.support.waiting import eventually
from tests.support.world import ADA, RETURN_TO, World


async def no_revocation_queued(world: World) -> bool:
    return await world.sql("SELECT 1 FROM pending_revocations") == []


async def no_token_is_alive(world: World) -> bool:
    """True if no token is alive, here or at Google."""
    state = world.standin.state
    with state.lock:
        google_call = list(state.refresh_tokens)
    return not google_call and await no_revocation_queued(world)


@asynccontextmanager
async def revocation_during_the_exchange(
    world: World, *, exchanged_before: bool, user_id: str = "user-1", **body: Any
) -> AsyncIterator[asyncio.Task[Any]]:
    """Complete a consent during which `withdrawing` revokes the account, and Google is notified.

    Returns the browser's answer.
    """
    await world.connect("withdrawing")
    hold = Fault.hold("exchange", after=exchanged_before)
    async with consent_at_google(world, user_id, **body) as (browser, callback):
        world.standin.faults.next("token", hold, grant_type="authorization_code")
        answering = asyncio.create_task(browser.get(callback))
        try:
            await asyncio.to_thread(world.standin.holds.wait_until_held, "exchange")
            sent = world.standin.requests.count("revoke")
            await world.revoke("withdrawing")
            await asyncio.to_thread(world.standin.requests.wait_for, "revoke", count=sent + 1)
            await eventually(lambda: no_revocation_queued(world))
            yield answering
        finally:
            world.standin.holds.release("exchange")
            await answering


CONFIRMED = {"confirm": True, "return_to": RETURN_TO}


@pytest.mark.parametrize("body", [{"return_to": RETURN_TO}, CONFIRMED], ids=["", "confirmed later"])
async def test_a_consent_revoked_at_google_since_its_code_exchange_is_not_connected(
    world: World, body: dict[str, Any]
) -> None:
    async with revocation_during_the_exchange(world, exchanged_before=True, **body) as answering:
        pass
    assert "status=failed" in (await answering).headers["location"]
    await audited(world, "consent", "failed:revocation_under_way")
    assert await world.grants() == []
    assert (await world.token()).json()["code"] == "grant_not_found"
    await eventually(lambda: no_token_is_alive(world))


async def test_the_token_of_a_consent_refused_for_a_revocation_is_revoked(
    world: World,
) -> None:
    """Google was notified before the code exchange, so the new token is alive."""
    async with revocation_during_the_exchange(world, exchanged_before=False) as answering:
        pass
    assert "still removing your previous connection" in (await answering).text
    assert await world.grants() == []
    await eventually(lambda: no_token_is_alive(world))
    # The next try succeeds.
    consent = await world.connect(return_to=RETURN_TO)
    assert consent.status == "connected"
    assert (await world.token(min_ttl=86_400)).status_code == 200


async def test_a_refused_consent_revokes_nothing_of_an_account_in_use(
    world: World,
) -> None:
    async with revocation_during_the_exchange(world, exchanged_before=True) as answering:
        await world.connect("user-2")
    assert "still removing your previous connection" in (await answering).text
    assert await no_revocation_queued(world)
    assert (await world.token("user-2", min_ttl=86_400)).status_code == 200


async def test_a_revocation_whose_answer_is_lost_counts_as_sent(world: World) -> None:
    """Google revokes the token; the broker only knows that it must send it again."""
    await world.connect("withdrawing")
    async with consent_at_google(world, return_to=RETURN_TO) as (browser, callback):
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


async def test_a_pending_consent_revoked_at_google_before_its_confirmation_is_invalid(
    world: World,
) -> None:
    """The sender stalls for longer than its lease, then continues."""
    await world.connect("withdrawing")
    world.standin.faults.next("revoke", Fault.hold("telling"))
    await world.revoke("withdrawing")
    await asyncio.to_thread(world.standin.holds.wait_until_held, "telling")
    world.clock.advance(timedelta(seconds=31))
    consent = await world.connect_pending()
    world.standin.holds.release("telling")

    async def is_sent() -> bool:
        return await world.metric("broker_revocations_total", outcome="told") == 1

    await eventually(is_sent)
    answer = await world.confirm(consent)
    assert (answer.status_code, answer.json()["code"]) == (409, "confirmation_invalid")
    assert await world.grants() == []
    await audited(world, "confirmation", "confirmation_invalid:void")


async def test_a_revocation_sent_before_the_code_exchange_does_not_block_the_consent(
    world: World,
) -> None:
    for _ in range(3):
        consent = await world.connect(return_to=RETURN_TO, account=ADA)
        assert consent.status == "connected"
        await world.revoke()
        await eventually(lambda: no_token_is_alive(world))
