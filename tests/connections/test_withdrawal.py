"""Withdrawing: at once here, at Google as soon as it answers, and never more than was meant."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from devstack.google_standin import Fault
from tests.support.waiting import eventually
from tests.support.world import (
    ADA,
    CALENDAR,
    CALENDAR_READONLY,
    RETURN_TO,
    World,
    open_world,
    stanza,
)


async def _told(world: World, count: int = 1) -> None:
    """Google has been asked to revoke so often."""
    await asyncio.to_thread(world.standin.requests.wait_for, "revoke", count=count)


async def _put_off(world: World) -> None:
    """A try has failed and is over: until then, consents for the account are refused."""

    async def is_put_off() -> bool:
        rows = await world.sql(
            "SELECT FROM pending_revocations WHERE attempts > 0 AND claimed_until IS NULL"
        )
        return len(rows) == 1

    await eventually(is_put_off)


async def _nothing_pending(world: World) -> None:
    async def is_empty() -> bool:
        return not await world.sql("SELECT FROM pending_revocations")

    await eventually(is_empty)


async def _counted(world: World, outcome: str, count: int = 1) -> None:
    async def is_so() -> bool:
        return await world.metric("broker_revocations_total", outcome=outcome) == count

    await eventually(is_so)


async def test_after_the_answer_no_token_is_handed_out(world: World) -> None:
    await world.connect()
    assert (await world.token()).status_code == 200
    assert (await world.revoke()).status_code == 204
    answer = await world.token()
    assert (answer.status_code, answer.json()["code"]) == (404, "grant_not_found")


async def test_the_sealed_tokens_are_erased(world: World) -> None:
    await world.connect()
    await world.token()
    await world.revoke()
    (row,) = await world.sql("SELECT sealed_refresh_token, status FROM grants")
    assert (row["sealed_refresh_token"], row["status"]) == (None, "revoked")
    assert await world.sql("SELECT FROM access_tokens") == []


async def test_google_is_told_and_the_token_dies_there(world: World) -> None:
    await world.connect()
    token = (await world.token()).json()["access_token"]
    await world.revoke()
    await _told(world)
    await _nothing_pending(world)
    assert token not in world.standin.state.access_tokens


async def test_the_grant_is_listed_as_revoked(world: World) -> None:
    await world.connect()
    await world.revoke()
    (grant,) = await world.grants()
    assert (grant["status"], grant["default"]) == ("revoked", False)


@pytest.mark.parametrize("sub", [None, "1234567890"])
async def test_revoking_nothing_succeeds(world: World, sub: str | None) -> None:
    assert (await world.revoke("nobody", sub)).status_code == 204


async def test_revoking_twice_succeeds_and_tells_google_once(world: World) -> None:
    await world.connect()
    assert (await world.revoke()).status_code == 204
    assert (await world.revoke()).status_code == 204
    await _told(world)
    await _nothing_pending(world)
    assert world.standin.requests.count("revoke") == 1


async def test_one_account_of_several_can_be_revoked(world: World) -> None:
    second = world.standin.add_account("second@example.com")
    await world.connect(account=ADA)
    await world.connect(account=second.email)
    assert (await world.revoke(sub=second.sub)).status_code == 204
    statuses = {g["account"]["email"]: g["status"] for g in await world.grants()}
    assert statuses == {ADA: "active", second.email: "revoked"}


@pytest.mark.parametrize(
    "fault", [Fault.http(503), Fault.drop(), Fault.rate_limited(), Fault.html_403()]
)
async def test_with_google_down_access_ends_at_once_and_google_is_told_later(
    world: World, fault: Fault
) -> None:
    await world.connect()
    world.standin.faults.next("revoke", fault)
    assert (await world.revoke()).status_code == 204
    assert (await world.token()).status_code == 404
    await _counted(world, "retried")
    world.clock.advance(timedelta(minutes=1))
    await world.connect("user-2", "grace@example.com")
    await world.revoke("user-2")
    await _nothing_pending(world)
    await _counted(world, "told", 2)


async def test_an_untold_revocation_survives_a_restart(world: World, tmp_path: Path) -> None:
    await world.connect()
    world.standin.faults.next("revoke", Fault.http(503))
    await world.revoke()
    await _counted(world, "retried")
    world.clock.advance(timedelta(minutes=1))
    folder = tmp_path / "restarted"
    folder.mkdir()
    url = world.settings.database_url.reveal()
    async with open_world(folder, url, world.standin, world.clock) as restarted:
        await _nothing_pending(restarted)
    assert world.standin.requests.count("revoke") == 2


async def test_google_is_given_the_time_that_it_asks_for(world: World) -> None:
    """RFC 7009 §2.2.1: `Retry-After` with a 503."""
    await world.connect()
    world.standin.faults.next("revoke", Fault.rate_limited(600))
    await world.revoke()
    await _counted(world, "retried")
    (row,) = await world.sql("SELECT next_attempt_at FROM pending_revocations")
    assert row["next_attempt_at"] - world.clock.now() >= timedelta(seconds=595)


async def test_an_already_revoked_token_counts_as_told(world: World) -> None:
    await world.connect()
    world.standin.revoke_account(ADA)
    await world.revoke()
    await _nothing_pending(world)


async def test_a_gateways_not_found_is_not_googles_answer(world: World) -> None:
    await world.connect()
    world.standin.faults.next("revoke", Fault.error("not_found", status=404))
    await world.revoke()
    await _counted(world, "retried")
    assert len(await world.sql("SELECT FROM pending_revocations")) == 1


async def test_an_answer_that_no_retry_would_change_is_taken_as_the_last_word(
    world: World,
) -> None:
    await world.connect()
    world.standin.faults.next("revoke", Fault.error("invalid_request", status=400))
    await world.revoke()
    await _nothing_pending(world)
    await _counted(world, "refused")


async def test_google_is_told_only_when_the_last_holder_of_an_account_goes(
    world: World,
) -> None:
    await world.connect("user-1", ADA)
    await world.connect("user-2", ADA)
    await world.revoke("user-1")
    assert (await world.token("user-2")).status_code == 200
    assert world.standin.requests.count("revoke") == 0
    await world.revoke("user-2")
    await _nothing_pending(world)
    assert world.standin.requests.count("revoke") == 1


async def test_two_last_holders_who_go_at_once_still_have_google_told(world: World) -> None:
    await world.connect("user-1", ADA)
    await world.connect("user-2", ADA)
    await asyncio.gather(world.revoke("user-1"), world.revoke("user-2"))
    await _told(world)
    await _nothing_pending(world)
    assert world.standin.requests.count("revoke") == 1


async def test_reconnecting_cancels_a_revocation_that_google_was_not_told(
    world: World,
) -> None:
    await world.connect()
    world.standin.faults.next("revoke", Fault.http(503))
    await world.revoke()
    await _put_off(world)
    await world.connect()
    assert await world.sql("SELECT FROM pending_revocations") == []
    assert (await world.token()).status_code == 200


async def test_a_consent_while_google_is_being_told_is_not_stored(world: World) -> None:
    await world.connect()
    world.standin.faults.next("revoke", Fault.hold("telling"))
    await world.revoke()
    await asyncio.to_thread(world.standin.holds.wait_until_held, "telling")
    assert (await world.connect(return_to=RETURN_TO)).status == "failed"
    world.standin.holds.release("telling")
    await _nothing_pending(world)
    assert (await world.connect(return_to=RETURN_TO)).status == "connected"
    assert (await world.token()).status_code == 200
    world.clock.advance(timedelta(hours=1))
    assert (await world.token()).status_code == 200


async def test_a_refresh_in_flight_resurrects_nothing(world: World) -> None:
    await world.connect()
    await world.token()
    world.clock.advance(timedelta(hours=1))
    world.standin.faults.next("token", Fault.hold("refresh"))
    asking = asyncio.create_task(world.token())
    await asyncio.to_thread(world.standin.holds.wait_until_held, "refresh")
    assert (await world.revoke()).status_code == 204
    world.standin.holds.release("refresh")
    assert (await asking).status_code == 404
    assert (await world.token()).status_code == 404
    assert await world.sql("SELECT FROM access_tokens") == []


async def test_an_access_token_of_an_earlier_consent_is_not_served_after_a_new_one(
    world: World,
) -> None:
    await world.connect()
    before = (await world.token()).json()["access_token"]
    await world.connect()
    assert (await world.token()).json()["access_token"] != before


async def test_incremental_consent_widens_the_same_grant(world: World) -> None:
    await world.connect(scopes=[CALENDAR_READONLY])
    assert (await world.token(scope=CALENDAR)).status_code == 409
    await world.connect(scopes=[CALENDAR])
    assert (await world.token(scope=CALENDAR)).status_code == 200
    assert (await world.token(scope=CALENDAR_READONLY)).status_code == 200
    assert len(await world.grants()) == 1


async def test_a_token_that_was_held_is_gone_for_every_caller(world: World) -> None:
    await world.rewrite_callers(
        {"calendar-sync": stanza(world.key), "reports": stanza("other-key-of-another-caller")}
    )
    reports = {"Authorization": "Bearer other-key-of-another-caller"}
    await world.connect()
    for headers in (world.authorization, reports):
        answer = await world.internal.get("/v1/users/user-1/token", headers=headers)
        assert answer.status_code == 200
    await world.revoke()
    for headers in (world.authorization, reports):
        answer = await world.internal.get("/v1/users/user-1/token", headers=headers)
        assert answer.status_code == 404


async def test_last_use_shows_at_once_and_reaches_the_table(world: World) -> None:
    await world.connect()
    assert (await world.grants())[0]["last_used_at"] is None
    await world.token()
    assert (await world.grants())[0]["last_used_at"] == "2026-01-01T12:00:00Z"

    async def is_written() -> bool:
        return (await world.sql("SELECT last_used_at FROM grants"))[0]["last_used_at"] is not None

    await eventually(is_written)


@pytest.mark.parametrize("sub", ["x" * 256, "a\nb"])
async def test_a_malformed_sub_is_refused(world: World, sub: str) -> None:
    answer = await world.revoke(sub=sub)
    assert (answer.status_code, answer.json()["field"]) == (400, "sub")


async def test_what_was_done_is_on_record(world: World) -> None:
    await world.connect()
    await world.token()
    await world.token("nobody")
    await world.revoke()
    expected = {
        ("consent", "connected"),
        ("token_refreshed", "refreshed"),
        ("token_handed_out", "ok"),
        ("token_refused", "grant_not_found"),
        ("grant_revoked", "ok"),
    }

    async def is_complete() -> bool:
        rows = await world.sql("SELECT action, outcome FROM audit_events")
        return expected <= {(row["action"], row["outcome"]) for row in rows}

    await eventually(is_complete)
