"""Revocation: immediate here, at Google as soon as it responds, and never more than requested."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from devstack.google_standin import Fault
from tests.support.scopes import CALENDAR, CALENDAR_READONLY
from tests.support.waiting import eventually
from tests.support.world import ADA, RETURN_TO, World, open_world, stanza


async def _wait_for_revocations(world: World, count: int = 1) -> None:
    """Wait until Google has received this many revocations."""
    await asyncio.to_thread(world.standin.requests.wait_for, "revoke", count=count)


async def _wait_until_postponed(world: World) -> None:
    """Wait until an attempt has failed: until then, consents of the account are refused."""

    async def is_postponed() -> bool:
        rows = await world.sql(
            "SELECT FROM pending_revocations WHERE attempts > 0 AND claimed_until IS NULL"
        )
        return len(rows) == 1

    await eventually(is_postponed)


async def _wait_until_outbox_is_empty(world: World) -> None:
    async def is_empty() -> bool:
        return not await world.sql("SELECT FROM pending_revocations")

    await eventually(is_empty)


async def _wait_for_count(world: World, outcome: str, count: int = 1) -> None:
    async def is_counted() -> bool:
        return await world.metric("broker_revocations_total", outcome=outcome) == count

    await eventually(is_counted)


async def test_after_the_response_no_token_is_handed_out(world: World) -> None:
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


async def test_google_gets_the_revocation_and_ends_the_token(world: World) -> None:
    await world.connect()
    token = (await world.token()).json()["access_token"]
    await world.revoke()
    await _wait_for_revocations(world)
    await _wait_until_outbox_is_empty(world)
    assert token not in world.standin.state.access_tokens


async def test_the_grant_is_listed_as_revoked(world: World) -> None:
    await world.connect()
    await world.revoke()
    (grant,) = await world.grants()
    assert (grant["status"], grant["default"]) == ("revoked", False)


@pytest.mark.parametrize("sub", [None, "1234567890"])
async def test_revoking_nothing_succeeds(world: World, sub: str | None) -> None:
    assert (await world.revoke("nobody", sub)).status_code == 204


async def test_revoking_twice_succeeds_and_reaches_google_once(world: World) -> None:
    await world.connect()
    assert (await world.revoke()).status_code == 204
    assert (await world.revoke()).status_code == 204
    await _wait_for_revocations(world)
    await _wait_until_outbox_is_empty(world)
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
async def test_while_google_is_down_access_ends_immediately_and_google_gets_it_later(
    world: World, fault: Fault
) -> None:
    await world.connect()
    world.standin.faults.next("revoke", fault)
    assert (await world.revoke()).status_code == 204
    assert (await world.token()).status_code == 404
    await _wait_for_count(world, "retried")
    world.clock.advance(timedelta(minutes=1))
    await world.connect("user-2", "grace@example.com")
    await world.revoke("user-2")
    await _wait_until_outbox_is_empty(world)
    await _wait_for_count(world, "told", 2)


async def test_a_queued_revocation_survives_a_restart(world: World, tmp_path: Path) -> None:
    await world.connect()
    world.standin.faults.next("revoke", Fault.http(503))
    await world.revoke()
    await _wait_for_count(world, "retried")
    world.clock.advance(timedelta(minutes=1))
    folder = tmp_path / "restarted"
    folder.mkdir()
    url = world.settings.database_url.reveal()
    async with open_world(folder, url, world.standin, world.clock) as restarted:
        await _wait_until_outbox_is_empty(restarted)
    assert world.standin.requests.count("revoke") == 2


async def test_a_retry_waits_as_long_as_google_asks(world: World) -> None:
    """RFC 7009 §2.2.1: `Retry-After` with a 503."""
    await world.connect()
    world.standin.faults.next("revoke", Fault.rate_limited(600))
    await world.revoke()
    await _wait_for_count(world, "retried")
    (row,) = await world.sql("SELECT next_attempt_at FROM pending_revocations")
    assert row["next_attempt_at"] - world.clock.now() >= timedelta(seconds=595)


async def test_a_token_already_revoked_at_google_counts_as_revoked(world: World) -> None:
    await world.connect()
    world.standin.revoke_account(ADA)
    await world.revoke()
    await _wait_until_outbox_is_empty(world)


async def test_a_gateways_404_is_not_googles_response(world: World) -> None:
    await world.connect()
    world.standin.faults.next("revoke", Fault.error("not_found", status=404))
    await world.revoke()
    await _wait_for_count(world, "retried")
    assert len(await world.sql("SELECT FROM pending_revocations")) == 1


async def test_a_refusal_that_no_retry_would_change_is_final(
    world: World,
) -> None:
    await world.connect()
    world.standin.faults.next("revoke", Fault.error("invalid_request", status=400))
    await world.revoke()
    await _wait_until_outbox_is_empty(world)
    await _wait_for_count(world, "refused")


async def test_google_gets_the_revocation_of_the_last_grant_of_an_account_only(
    world: World,
) -> None:
    await world.connect("user-1", ADA)
    await world.connect("user-2", ADA)
    await world.revoke("user-1")
    assert (await world.token("user-2")).status_code == 200
    assert world.standin.requests.count("revoke") == 0
    await world.revoke("user-2")
    await _wait_until_outbox_is_empty(world)
    assert world.standin.requests.count("revoke") == 1


async def test_concurrent_revocations_of_the_last_two_grants_reach_google(world: World) -> None:
    await world.connect("user-1", ADA)
    await world.connect("user-2", ADA)
    await asyncio.gather(world.revoke("user-1"), world.revoke("user-2"))
    await _wait_for_revocations(world)
    await _wait_until_outbox_is_empty(world)
    assert world.standin.requests.count("revoke") == 1


async def test_reconnecting_cancels_a_revocation_that_google_has_not_received(
    world: World,
) -> None:
    await world.connect()
    world.standin.faults.next("revoke", Fault.http(503))
    await world.revoke()
    await _wait_until_postponed(world)
    await world.connect()
    assert await world.sql("SELECT FROM pending_revocations") == []
    assert (await world.token()).status_code == 200


async def test_a_consent_during_the_call_to_google_is_not_stored(world: World) -> None:
    await world.connect()
    world.standin.faults.next("revoke", Fault.hold("revoking"))
    await world.revoke()
    await asyncio.to_thread(world.standin.holds.wait_until_held, "revoking")
    assert (await world.connect(return_to=RETURN_TO)).status == "failed"
    world.standin.holds.release("revoking")
    await _wait_until_outbox_is_empty(world)
    assert (await world.connect(return_to=RETURN_TO)).status == "connected"
    assert (await world.token()).status_code == 200
    world.clock.advance(timedelta(hours=1))
    assert (await world.token()).status_code == 200


async def test_a_concurrent_refresh_resurrects_nothing(world: World) -> None:
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


async def test_a_cached_token_is_gone_for_every_caller(world: World) -> None:
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


async def test_the_last_use_is_shown_immediately_and_reaches_the_table(world: World) -> None:
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


async def test_what_was_done_is_audited(world: World) -> None:
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
