"""The checks of refresh and revocation: races, late writers, and failures of Google."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import asyncpg
import pytest
import pytest_asyncio

from devstack.google_standin import Fault
from tests.support.clock import ManualClock
from tests.support.probes import audited, consent_at_google
from tests.support.scopes import CALENDAR, CALENDAR_READONLY
from tests.support.waiting import eventually
from tests.support.world import ADA, GRACE, World, open_world


@pytest_asyncio.fixture
async def replica(
    world: World, tmp_path_factory: pytest.TempPathFactory, clock: ManualClock
) -> AsyncIterator[World]:
    """A second broker on the same database; its caller has another key."""
    folder, url = tmp_path_factory.mktemp("replica"), world.settings.database_url.reveal()
    async with open_world(folder, url, world.standin, clock) as opened:
        yield opened


async def expired(world: World, user_id: str = "user-1") -> None:
    """A grant whose access tokens have all expired."""
    await world.connect(user_id)
    assert (await world.token(user_id)).status_code == 200
    world.clock.advance(timedelta(hours=1))


async def held_refresh(world: World, user_id: str = "user-1") -> asyncio.Task[object]:
    """A token request held at Google, which has already issued the new token."""
    world.standin.faults.next("token", Fault.hold("refresh", after=True))
    asking = asyncio.create_task(world.token(user_id))
    await asyncio.to_thread(world.standin.holds.wait_until_held, "refresh")
    return asking


async def tokens_in_the_table(world: World) -> int:
    return len(await world.sql("SELECT * FROM access_tokens"))


async def test_check_33_many_callers_at_expiry_cause_one_refresh(world: World) -> None:
    await expired(world)
    before = world.refreshes_at_google()
    answers = await asyncio.gather(*(world.token(min_ttl=60 + number % 7) for number in range(100)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["access_token"] for answer in answers}) == 1
    assert world.refreshes_at_google() == before + 1


async def test_check_33_callers_of_all_replicas_cause_one_refresh(
    world: World, replica: World
) -> None:
    await expired(world)
    before = world.refreshes_at_google()
    answers = await asyncio.gather(*(each.token() for each in [world, replica] * 30))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["access_token"] for answer in answers}) == 1
    assert world.refreshes_at_google() == before + 1


async def test_check_34_a_late_writer_does_not_overwrite_a_newer_consent(
    world: World, replica: World
) -> None:
    """One replica's refresh stalls; meanwhile the user connects again through the other."""
    await expired(world)
    asking = await held_refresh(world)
    await replica.connect(scopes=[CALENDAR, CALENDAR_READONLY], account=ADA)
    newest = await world.sql("SELECT sealed_refresh_token, version FROM grants")
    tokens = await world.sql("SELECT sealed_access_token FROM access_tokens ORDER BY scope_set")
    world.standin.holds.release("refresh")
    await asking
    assert await world.sql("SELECT sealed_refresh_token, version FROM grants") == newest
    kept = await world.sql("SELECT sealed_access_token FROM access_tokens ORDER BY scope_set")
    assert set(map(tuple, tokens)) <= set(map(tuple, kept))
    assert await audited(world, "token_refreshed", "superseded")


async def test_check_34_a_late_rotation_does_not_replace_a_newer_refresh_token(
    world: World,
) -> None:
    """The token was replaced between Google's answer and the write."""
    await expired(world)
    before = await world.sql("SELECT sealed_refresh_token FROM grants")
    world.standin.faults.next("token", Fault.rotate_refresh_token(retire_old=False))
    session = await asyncpg.connect(world.settings.database_url.reveal())
    try:
        async with session.transaction():
            await session.execute(
                "UPDATE grants SET version = version + 1, "
                "refresh_token_version = refresh_token_version + 1"
            )
            refreshes = world.standin.requests.count("token")
            asking = asyncio.create_task(world.token())
            await asyncio.to_thread(world.standin.requests.wait_for, "token", count=refreshes + 1)
    finally:
        await session.close()
    assert (await asking).status_code == 200
    assert await world.sql("SELECT sealed_refresh_token FROM grants") == before
    assert await audited(world, "token_refreshed", "superseded")


async def test_a_late_rotation_is_stored_if_the_refresh_token_was_not_replaced(
    world: World,
) -> None:
    """Meanwhile a security event requires a refresh; the old refresh token is already revoked."""
    await expired(world)
    world.standin.faults.next("token", Fault.rotate_refresh_token())
    session = await asyncpg.connect(world.settings.database_url.reveal())
    try:
        async with session.transaction():
            await session.execute("UPDATE grants SET version = version + 1")
            refreshes = world.standin.requests.count("token")
            asking = asyncio.create_task(world.token())
            await asyncio.to_thread(world.standin.requests.wait_for, "token", count=refreshes + 1)
    finally:
        await session.close()
    assert (await asking).status_code == 200
    assert [grant["status"] for grant in await world.grants()] == ["active"]
    assert await audited(world, "token_refreshed", "superseded")


@pytest.mark.parametrize(
    "fault",
    [Fault.http(500), Fault.rate_limited(5), Fault.html_403(), Fault.drop(), Fault.half()],
    ids=["500", "429", "html 403", "dropped", "half"],
)
async def test_check_35_a_valid_token_is_returned_during_failures_and_the_grant_is_unchanged(
    world: World, fault: Fault
) -> None:
    await world.connect()
    token = (await world.token()).json()["access_token"]
    world.clock.advance(timedelta(minutes=59, seconds=30))
    world.standin.faults.always("token", fault)
    assert (await world.token()).json()["access_token"] == token
    world.clock.advance(timedelta(minutes=1))
    assert (await world.token()).json()["code"] == "google_unavailable"
    assert [grant["status"] for grant in await world.grants()] == ["active"]


async def test_check_36_many_requests_record_invalid_grant_once(
    world: World, replica: World
) -> None:
    await expired(world)
    world.standin.faults.always("token", Fault.invalid_grant())
    before = world.refreshes_at_google()
    answers = await asyncio.gather(*(world.token() for _ in range(20)))
    answers += [await world.token(), await world.token(min_ttl=1), await replica.token()]
    assert {answer.json()["code"] for answer in answers} == {"reauthorization_required"}
    assert world.refreshes_at_google() == before + 1
    assert len(await audited(world, "token_refreshed", "grant_refused")) == 1


async def test_check_36_invalid_client_changes_no_grant(world: World) -> None:
    world.standin.add_account(GRACE)
    for user_id, account in (("ada", ADA), ("grace", GRACE)):
        await world.connect(user_id, account)
    before = await world.sql("SELECT * FROM grants ORDER BY id")
    world.standin.faults.always("token", Fault.invalid_client())
    for user_id in ("ada", "grace"):
        assert (await world.token(user_id)).json()["code"] == "client_misconfigured"
    assert await world.sql("SELECT * FROM grants ORDER BY id") == before


async def test_check_37_a_refresh_token_is_replaced_only_if_google_returns_a_new_one(
    world: World,
) -> None:
    await expired(world)
    kept = await world.sql("SELECT sealed_refresh_token FROM grants")
    assert (await world.token()).status_code == 200
    assert await world.sql("SELECT sealed_refresh_token FROM grants") == kept
    world.clock.advance(timedelta(hours=1))
    world.standin.faults.next("token", Fault.rotate_refresh_token())
    assert (await world.token()).status_code == 200
    assert await world.sql("SELECT sealed_refresh_token FROM grants") != kept
    for _ in range(2):
        world.clock.advance(timedelta(hours=1))
        assert (await world.token()).status_code == 200


async def test_check_38_revoking_an_unknown_or_revoked_grant_succeeds(world: World) -> None:
    assert (await world.revoke("unknown-user")).status_code == 204
    assert (await world.revoke("unknown-user", sub="1234")).status_code == 204
    await world.connect()
    for _ in range(3):
        assert (await world.revoke()).status_code == 204
    await asyncio.to_thread(world.standin.requests.wait_for, "revoke")
    assert world.standin.requests.count("revoke") == 1


async def test_check_38_with_google_down_access_ends_immediately_and_the_revocation_is_sent_later(
    world: World, replica: World
) -> None:
    await world.connect()
    assert (await world.token()).status_code == 200
    world.standin.faults.always("revoke", Fault.http(503))
    assert (await world.revoke()).status_code == 204
    for broker in (world, replica):
        assert (await broker.token()).json()["code"] == "grant_not_found"
    assert await tokens_in_the_table(world) == 0
    assert await world.sql("SELECT * FROM grants WHERE sealed_refresh_token IS NOT NULL") == []
    await asyncio.to_thread(world.standin.requests.wait_for, "revoke")
    world.standin.faults.clear("revoke")
    world.clock.advance(timedelta(minutes=1))
    await asyncio.to_thread(world.standin.requests.wait_for, "revoke", count=2)
    assert not world.standin.state.refresh_tokens
    assert await _soon_empty(world, "pending_revocations")


async def test_check_38_no_revocation_is_sent_while_another_user_uses_the_account(
    world: World,
) -> None:
    await world.connect("first")
    await world.connect("second")
    await world.revoke("first")
    assert (await world.token("first")).status_code == 404
    assert (await world.token("second", min_ttl=86_400)).status_code == 200
    assert world.standin.requests.count("revoke") == 0
    await world.revoke("second")
    await asyncio.to_thread(world.standin.requests.wait_for, "revoke")
    assert not world.standin.state.refresh_tokens


async def test_check_38_concurrent_revocations_of_the_last_two_users_are_sent(
    world: World,
) -> None:
    await world.connect("first")
    await world.connect("second")
    await asyncio.gather(world.revoke("first"), world.revoke("second"))
    await asyncio.to_thread(world.standin.requests.wait_for, "revoke")
    assert not world.standin.state.refresh_tokens


async def test_check_39_a_revocation_during_a_refresh_resurrects_no_token(world: World) -> None:
    await expired(world)
    asking = await held_refresh(world)
    assert (await world.revoke()).status_code == 204
    world.standin.holds.release("refresh")
    answer = await asking
    assert getattr(answer, "status_code", None) == 404
    assert (await world.token()).json()["code"] == "grant_not_found"
    assert await tokens_in_the_table(world) == 0
    assert [grant["status"] for grant in await world.grants()] == ["revoked"]


async def test_check_39_a_refresh_token_that_arrives_after_the_revocation_is_not_stored(
    world: World,
) -> None:
    await expired(world)
    world.standin.faults.next("token", Fault.rotate_refresh_token(hold="refresh"))
    asking = asyncio.create_task(world.token())
    await asyncio.to_thread(world.standin.holds.wait_until_held, "refresh")
    assert (await world.revoke()).status_code == 204
    world.standin.holds.release("refresh")
    assert (await asking).status_code == 404
    (row,) = await world.sql("SELECT status, sealed_refresh_token FROM grants")
    assert tuple(row) == ("revoked", None)
    assert await tokens_in_the_table(world) == 0


async def test_check_39_a_revocation_by_another_replica_during_a_refresh_takes_effect(
    world: World, replica: World
) -> None:
    await expired(world)
    asking = await held_refresh(world)
    assert (await replica.revoke()).status_code == 204
    world.standin.holds.release("refresh")
    answer = await asking
    assert getattr(answer, "status_code", None) == 404
    assert (await world.token()).json()["code"] == "grant_not_found"
    assert await tokens_in_the_table(world) == 0


async def test_check_39_a_rotation_during_a_revocation_leaves_no_refresh_token(
    world: World,
) -> None:
    await expired(world)
    world.standin.faults.next("token", Fault.rotate_refresh_token(retire_old=False))
    await asyncio.gather(world.token(), world.revoke(), world.token())
    assert (await world.token()).status_code == 404
    assert await world.sql("SELECT * FROM grants WHERE sealed_refresh_token IS NOT NULL") == []
    assert await tokens_in_the_table(world) == 0


async def test_check_39_a_consent_that_ends_after_a_revocation_takes_effect(
    world: World,
) -> None:
    """The last of the two counts, and no queued revocation may undo the consent."""
    await world.connect()
    world.standin.faults.always("revoke", Fault.http(503))
    async with consent_at_google(world) as (browser, callback):
        await world.revoke()

        async def is_postponed() -> bool:
            """Until then the consent is refused: Google may be about to revoke its token."""
            rows = await world.sql(
                "SELECT 1 FROM pending_revocations WHERE attempts > 0 AND claimed_until IS NULL"
            )
            return len(rows) == 1

        await eventually(is_postponed)
        assert (await browser.get(callback)).status_code == 200
    world.standin.faults.clear()
    world.clock.advance(timedelta(minutes=10))
    assert await world.sql("SELECT * FROM pending_revocations") == []
    assert (await world.token()).status_code == 200


async def _soon_empty(world: World, table: str) -> bool:
    async with asyncio.timeout(10):
        while True:
            if not await world.sql(f"SELECT FROM {table}"):
                return True
            await asyncio.sleep(0.05)
