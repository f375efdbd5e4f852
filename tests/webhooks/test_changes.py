"""Each change of a grant's status is sent once, whatever made it, and nothing else is sent."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest
from standardwebhooks import Webhook

from broker.webhooks import sender
from devstack.google_standin import Fault, GoogleStandin
from tests.support.clock import ManualClock
from tests.support.probes import audited
from tests.support.scopes import CALENDAR, CALENDAR_READONLY
from tests.support.waiting import eventually
from tests.support.world import ADA, World, open_world
from tests.webhooks.conftest import SECRET, Replica, new_secret
from tests.webhooks.receiver import Receiver


async def _break(world: World, user_id: str = "user-1") -> None:
    """Make Google refuse the grant, and let the broker notice."""
    world.clock.advance(timedelta(hours=2))
    world.standin.faults.next("token", Fault.invalid_grant())
    assert (await world.token(user_id)).status_code == 409


@pytest.fixture
def without_polling(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sender sends only when it is notified of a change."""
    monkeypatch.setattr(sender, "POLL_SECONDS", 3600.0)


@pytest.mark.usefixtures("without_polling")
async def test_a_new_grant_is_sent_immediately(world: World, receiver: Receiver) -> None:
    await world.connect()
    (received,) = await receiver.wait_for(1)
    (grant,) = await world.grants()
    event = received.event
    assert event["type"] == "grant.connected"
    assert event["timestamp"][:19] + "Z" == grant["updated_at"]
    assert event["data"] == {
        "user_id": "user-1",
        "account": {"sub": grant["account"]["sub"]},
        "status": "active",
        "scopes": grant["scopes"],
    }


async def test_all_changes_of_a_grant_are_sent_in_order(world: World, receiver: Receiver) -> None:
    await world.connect()
    await _break(world)
    await world.connect()
    await world.revoke()
    await world.until_revocations_are_sent()
    await world.connect()
    await receiver.wait_for(5)
    assert receiver.types == [
        "grant.connected",
        "grant.reauthorization_required",
        "grant.recovered",
        "grant.revoked",
        "grant.connected",
    ]
    data = [received.event["data"] for received in receiver.received]
    assert [each.get("reason") for each in data] == [None, "invalid_grant", None, None, None]
    assert [each["status"] for each in data] == [
        "active", "reauthorization_required", "active", "revoked", "active",
    ]  # fmt: skip
    assert len({received.id for received in receiver.received}) == 5


async def test_check_36_a_dead_grant_is_sent_once_although_many_replicas_notice(
    world: World, receiver: Receiver, webhook_settings: dict[str, str], tmp_path: Path
) -> None:
    await world.connect()
    folder, url = tmp_path / "replica", world.settings.database_url.reveal()
    folder.mkdir()
    async with open_world(
        folder, url, world.standin, world.clock, changes=webhook_settings
    ) as replica:
        world.clock.advance(timedelta(hours=2))
        world.standin.faults.always("token", Fault.invalid_grant())
        before = world.refreshes_at_google()
        answers = await asyncio.gather(*(each.token() for each in [world, replica] * 10))
        assert {answer.json()["code"] for answer in answers} == {"reauthorization_required"}
        assert world.refreshes_at_google() == before + 1
        await receiver.wait_for(2)

        async def is_outbox_empty() -> bool:
            return await world.sql("SELECT 1 FROM webhook_events") == []

        # The row is deleted after the receiver's answer.
        await eventually(is_outbox_empty)
    assert receiver.types == ["grant.connected", "grant.reauthorization_required"]
    assert len(await audited(world, "token_refreshed", "grant_refused")) == 1


async def test_no_message_contains_an_email_or_a_token(world: World, receiver: Receiver) -> None:
    await world.connect()
    token = (await world.token()).json()["access_token"]
    await world.revoke()
    for received in await receiver.wait_for(2):
        text = received.body.decode() + str(received.headers)
        assert ADA not in text
        assert token not in text


async def test_changes_without_a_new_status_are_not_sent(world: World, receiver: Receiver) -> None:
    await world.connect(scopes=[CALENDAR_READONLY])
    await world.connect(scopes=[CALENDAR])
    world.clock.advance(timedelta(hours=2))
    assert (await world.token()).status_code == 200
    await world.revoke()
    await receiver.wait_for(2)
    assert receiver.types == ["grant.connected", "grant.revoked"]


async def test_revoking_all_grants_of_a_user_sends_each_once(
    world: World, receiver: Receiver
) -> None:
    second = world.standin.add_account("second@example.com")
    await world.connect(account=ADA)
    await world.connect(account=second.email)
    await world.revoke()
    await world.revoke()
    await receiver.wait_for(4)
    ended = [each.event for each in receiver.received if each.type == "grant.revoked"]
    subs = {grant["account"]["sub"] for grant in await world.grants()}
    assert len(ended) == len(subs) == 2
    assert {event["data"]["account"]["sub"] for event in ended} == subs


async def test_a_broken_grant_that_two_replicas_notice_is_sent_once(
    world: World,
    receiver: Receiver,
    tmp_path_factory: pytest.TempPathFactory,
    webhook_settings: dict[str, str],
) -> None:
    url = world.settings.database_url.reveal()
    folder = tmp_path_factory.mktemp("other")
    async with open_world(
        folder, url, world.standin, world.clock, changes=webhook_settings
    ) as other:
        await world.connect()
        await receiver.wait_for(1)
        world.clock.advance(timedelta(hours=2))
        world.standin.faults.always("token", Fault.invalid_grant())
        for replica in (world, other):
            assert (await replica.token()).status_code == 409
        await world.revoke()
        await receiver.wait_for(3)
        assert receiver.types[1:] == ["grant.reauthorization_required", "grant.revoked"]


async def test_a_change_that_is_rolled_back_is_not_sent(
    replica: Replica, clock: ManualClock
) -> None:
    grant_id = await replica.make_grant(clock.now())

    async def change_and_fail() -> None:
        async with replica.database.transaction() as connection:
            await connection.execute(
                "UPDATE grants SET status = 'reauthorization_required' WHERE id = $1", grant_id
            )
            assert await connection.fetchval("SELECT count(*) FROM webhook_events") == 2
            await connection.execute("SELECT 1 / 0")

    with pytest.raises(asyncpg.DivisionByZeroError):
        await change_and_fail()
    (row,) = await replica.sql("SELECT type FROM webhook_events")
    assert row["type"] == "grant.connected"


async def test_a_change_made_without_the_broker_is_sent(
    replica: Replica, receiver: Receiver, clock: ManualClock
) -> None:
    """By a release without webhooks, or by hand."""
    grant_id = await replica.make_grant(clock.now())
    await replica.set_status(grant_id, "revoked", clock.now())
    await replica.round()
    await replica.round()
    assert receiver.types == ["grant.connected", "grant.revoked"]


async def test_an_unconfirmed_grant_is_never_sent(replica: Replica, clock: ManualClock) -> None:
    grant_id = await replica.make_grant(clock.now(), status="pending_confirmation")
    await replica.set_status(grant_id, "revoked", clock.now())
    assert await replica.sql("SELECT FROM webhook_events") == []


async def test_a_grant_is_sent_when_it_is_confirmed(
    replica: Replica, receiver: Receiver, clock: ManualClock
) -> None:
    grant_id = await replica.make_grant(clock.now(), status="pending_confirmation")
    await replica.round()
    assert receiver.types == []
    await replica.set_status(grant_id, "active", clock.now())
    await replica.round()
    assert receiver.types == ["grant.connected"]


# With the verifier of Standard Webhooks, which needs the real time.


@pytest.fixture
async def present_world(
    tmp_path: Path,
    database_url: str,
    shared_standin: GoogleStandin,
    webhook_settings: dict[str, str],
    rotating: Sequence[str],
) -> AsyncIterator[World]:
    """A broker in the present, with keys in the middle of a rotation."""
    clock = ManualClock(datetime.now(UTC))
    shared_standin.reset(clock=clock)
    webhook_settings["BROKER_WEBHOOK_SECRET"] = ", ".join(rotating)
    async with open_world(
        tmp_path, database_url, shared_standin, clock, changes=webhook_settings
    ) as opened:
        yield opened


@pytest.fixture
def rotating() -> Sequence[str]:
    return [new_secret(), SECRET]


async def test_the_standard_webhooks_library_verifies_with_either_key(
    present_world: World, receiver: Receiver, rotating: Sequence[str]
) -> None:
    await present_world.connect(user_id="사용자 1")
    (received,) = await receiver.wait_for(1)
    for secret in rotating:
        event = Webhook(secret).verify(received.body, dict(received.headers))
        assert event["data"]["user_id"] == "사용자 1"


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({}, {b"user-1": b"user-2"}),
        ({"webhook-id": "another"}, {}),
        ({"webhook-timestamp": "1"}, {}),
    ],
    ids=["body", "id", "timestamp"],
)
async def test_the_standard_webhooks_library_rejects_a_changed_message(
    present_world: World,
    receiver: Receiver,
    rotating: Sequence[str],
    headers: dict[str, str],
    body: dict[bytes, bytes],
) -> None:
    await present_world.connect()
    (received,) = await receiver.wait_for(1)
    changed = received.body
    for old, new in body.items():
        changed = changed.replace(old, new)
    with pytest.raises(Exception, match=r"No matching signature|too old"):
        Webhook(rotating[0]).verify(changed, dict(received.headers) | headers)


async def test_the_standard_webhooks_library_rejects_another_key(
    present_world: World, receiver: Receiver
) -> None:
    await present_world.connect()
    (received,) = await receiver.wait_for(1)
    with pytest.raises(Exception, match="No matching signature"):
        Webhook(new_secret()).verify(received.body, dict(received.headers))
