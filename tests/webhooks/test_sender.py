"""Delivery: each change reaches the receiver, and a bad receiver harms nothing else."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest
from standardwebhooks import Webhook

from broker.webhooks import outbox
from broker.webhooks.delivery import MAX_CONCURRENT
from broker.webhooks.outbox import GIVE_UP_AFTER, LEASE, WebhookOutbox
from broker.webhooks.retry_schedule import RETRY_PAUSES
from broker.webhooks.sender import NoWebhookReceiver
from devstack.google_standin import GoogleStandin
from tests.support.clock import ManualClock
from tests.support.waiting import eventually
from tests.support.world import World, open_world
from tests.webhooks.conftest import SECRET, Replica
from tests.webhooks.receiver import Receiver, head

FIRST_WAIT = RETRY_PAUSES[0] * 1.3
_DIES_FINISHING = (
    "SELECT pg_terminate_backend(pg_backend_pid()) WHERE $1::uuid IS NOT NULL AND $2::int > 0"
)


async def _rows(replica: Replica) -> list[tuple[str, int, str | None, bool]]:
    rows = await replica.sql("SELECT * FROM webhook_events ORDER BY number")
    return [
        (row["type"], row["attempts"], row["last_failure"], row["given_up_at"] is not None)
        for row in rows
    ]


async def _is_empty(replica: Replica) -> bool:
    return not await _rows(replica)


async def test_an_accepted_event_is_deleted_counted_and_audited(
    replica: Replica, receiver: Receiver, clock: ManualClock
) -> None:
    grant_id = await replica.make_grant(clock.now())
    await replica.round()
    await replica.round()
    assert (receiver.types, await _rows(replica)) == (["grant.connected"], [])
    assert replica.counted("delivered") == 1
    await replica.audit.flush()
    (record,) = await replica.sql("SELECT * FROM audit_events")
    assert (record["action"], record["outcome"]) == ("webhook", "delivered:grant.connected")
    assert record["user_id"] == str(grant_id)


async def test_a_change_is_sent_after_a_restart(
    tmp_path: Path,
    database_url: str,
    standin: GoogleStandin,
    clock: ManualClock,
    receiver: Receiver,
    webhook_settings: dict[str, str],
) -> None:
    await receiver.stop()
    async with open_world(
        tmp_path, database_url, standin, clock, changes=webhook_settings
    ) as world:
        await world.connect()

        async def is_retried() -> bool:
            return await world.metric("broker_webhooks_total", outcome="retried") == 1

        await eventually(is_retried)
    clock.advance(FIRST_WAIT)
    await receiver.start()
    async with open_world(tmp_path, database_url, standin, clock, changes=webhook_settings):
        await receiver.wait_for(1)
    assert receiver.types == ["grant.connected"]


async def test_a_receiver_that_was_down_gets_the_event_when_it_is_back(
    replica: Replica, receiver: Receiver, clock: ManualClock
) -> None:
    await receiver.stop()
    await replica.make_grant(clock.now())
    for wait in RETRY_PAUSES[:3]:
        await replica.round()
        await replica.round()
        clock.advance(wait * 1.3)
    await receiver.start()
    assert await _rows(replica) == [("grant.connected", 3, "connect", False)]
    await replica.round()
    assert (receiver.types, await _rows(replica)) == (["grant.connected"], [])


async def test_an_event_of_a_replica_that_died_is_sent_again_with_the_same_id(
    replicas: list[Replica], receiver: Receiver, clock: ManualClock
) -> None:
    dying, other = replicas
    await dying.make_grant(clock.now())
    (event,) = await dying.outbox.claim(limit=1)
    await dying.delivery.post(dying.signer.sign(event, attempted_at=clock.now()))
    await other.round()
    assert len(receiver.received) == 1
    clock.advance(LEASE + timedelta(seconds=1))
    await other.round()
    first, second = receiver.received
    assert (first.id, first.body) == (second.id, second.body)
    assert int(second.headers["webhook-timestamp"]) == int(first.headers["webhook-timestamp"]) + 31
    assert await _is_empty(other)


async def test_a_claimant_whose_lease_expired_changes_nothing(
    replicas: list[Replica], clock: ManualClock
) -> None:
    late, other = replicas
    await late.make_grant(clock.now())
    (claimed_first,) = await late.outbox.claim(limit=1)
    clock.advance(LEASE + timedelta(seconds=1))
    (claimed_then,) = await other.outbox.claim(limit=1)
    await late.outbox.finish(claimed_first)
    await late.outbox.postpone(claimed_first, until=clock.now(), failure="timeout")
    assert not await late.outbox.give_up(claimed_first, failure="timeout")
    assert await late.outbox.claim(limit=1) == []
    assert await _rows(other) == [("grant.connected", 2, None, False)]
    await other.outbox.finish(claimed_then)
    assert await _is_empty(other)


async def test_two_replicas_together_send_each_change_once(
    replicas: list[Replica], receiver: Receiver, clock: ManualClock
) -> None:
    for _ in range(30):
        await replicas[0].make_grant(clock.now())
    while not await _is_empty(replicas[0]):
        await asyncio.gather(*(replica.round() for replica in replicas))
    assert len(receiver.received) == len({each.id for each in receiver.received}) == 30


async def test_no_event_is_claimed_twice(replicas: list[Replica], clock: ManualClock) -> None:
    for _ in range(40):
        await replicas[0].make_grant(clock.now())
    claims = await asyncio.gather(
        *(replica.outbox.claim(limit=2) for _ in range(15) for replica in replicas)
    )
    claimed = [event.id for claim in claims for event in claim]
    assert len(claimed) == len(set(claimed)) > 2


async def test_only_later_changes_of_the_same_grant_wait_for_an_earlier_one(
    replica: Replica, receiver: Receiver, clock: ManualClock
) -> None:
    receiver.answers = [head(500)]
    grant_id = await replica.make_grant(clock.now())
    await replica.round()
    await replica.set_status(grant_id, "revoked", clock.now())
    other_id = await replica.make_grant(clock.now())
    await replica.round()
    await replica.round()
    assert [each.event["data"]["user_id"] for each in receiver.received] == [
        str(grant_id),
        str(other_id),
    ]
    clock.advance(FIRST_WAIT)
    await replica.round()
    await replica.round()
    assert receiver.types[2:] == ["grant.connected", "grant.revoked"]


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        (head(500), "http_500"),
        (head(400), "http_400"),
        (head(302, location="http://127.0.0.1:1/elsewhere"), "http_302"),
        (b"", "protocol"),
        (b"nonsense\r\n\r\n", "protocol"),
        (b"HTTP/1.1 20", "protocol"),
    ],
)
async def test_any_answer_but_2xx_is_retried(
    replica: Replica, receiver: Receiver, clock: ManualClock, answer: bytes, failure: str
) -> None:
    receiver.answers = [answer]
    await replica.make_grant(clock.now())
    await replica.round()
    assert await _rows(replica) == [("grant.connected", 1, failure, False)]
    assert replica.counted("retried") == 1
    clock.advance(FIRST_WAIT)
    await replica.round()
    assert await _is_empty(replica)


async def test_an_endless_body_does_not_change_the_result(
    replica: Replica, receiver: Receiver, clock: ManualClock
) -> None:
    receiver.answers = [b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 1_000_000]
    await replica.make_grant(clock.now())
    await replica.round()
    assert await _is_empty(replica)


@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_pauses_all_events(
    replica: Replica, receiver: Receiver, clock: ManualClock, status: int
) -> None:
    receiver.answers = [head(status, retry_after="600")]
    await replica.make_grant(clock.now())
    await replica.round()
    await replica.make_grant(clock.now())
    clock.advance(timedelta(seconds=599))
    await replica.round()
    assert len(receiver.received) == 1
    clock.advance(timedelta(seconds=2))
    await replica.round()
    assert len(receiver.received) == 3


async def test_a_receiver_that_is_gone_is_tried_once_an_hour(
    replica: Replica, receiver: Receiver, clock: ManualClock
) -> None:
    receiver.answer = head(410)
    await replica.make_grant(clock.now())
    for _ in range(8):
        clock.advance(timedelta(minutes=15, seconds=1))
        await replica.round()
    assert len(receiver.received) == 2
    assert replica.counted("gone") == 2


async def test_an_event_is_given_up_after_ten_attempts_kept_and_purged(
    replica: Replica, receiver: Receiver, clock: ManualClock
) -> None:
    receiver.answer = head(500)
    grant_id = await replica.make_grant(clock.now())
    begun = clock.now()
    for wait in RETRY_PAUSES:
        await replica.round()
        clock.advance(wait * 1.3)
    assert replica.counted("given_up") == 0
    await replica.set_status(grant_id, "revoked", clock.now())
    await replica.round()
    assert clock.now() - begun > timedelta(days=3)
    assert len(receiver.received) == len(RETRY_PAUSES) + 1 == 10
    assert len({each.id for each in receiver.received}) == 1
    assert (replica.counted("retried"), replica.counted("given_up")) == (9, 1)
    await replica.audit.flush()
    (record,) = await replica.sql("SELECT * FROM audit_events")
    assert (record["action"], record["outcome"]) == ("webhook", "given_up:grant.connected")
    receiver.answer = head(204)
    await replica.round()
    assert receiver.types[-1] == "grant.revoked"
    assert await _rows(replica) == [("grant.connected", 10, "http_500", True)]
    clock.advance(timedelta(days=13))
    await replica.sender.tidy()
    assert len(await _rows(replica)) == 1
    clock.advance(timedelta(days=2))
    await replica.sender.tidy()
    assert await _is_empty(replica)


async def test_an_event_is_given_up_after_a_week(
    replica: Replica, receiver: Receiver, clock: ManualClock
) -> None:
    await replica.make_grant(clock.now())
    clock.advance(GIVE_UP_AFTER - timedelta(seconds=1))
    await replica.sender.tidy()
    assert (replica.counted("given_up"), replica.waiting()) == (0, 1)
    clock.advance(timedelta(seconds=2))
    await replica.sender.tidy()
    assert (replica.counted("given_up"), replica.waiting()) == (1, 0)
    await replica.round()
    assert receiver.received == []


async def test_a_slow_receiver_gets_a_bounded_number_of_requests_and_blocks_no_connection(
    replica: Replica, receiver: Receiver, clock: ManualClock
) -> None:
    receiver.hold = asyncio.Event()
    for _ in range(MAX_CONCURRENT + 5):
        await replica.make_grant(clock.now())
    for _ in range(3):
        await replica.sender.send_due()
    await receiver.wait_for(MAX_CONCURRENT)
    async with asyncio.timeout(30):
        await asyncio.gather(*(replica.database.fetch("SELECT pg_sleep(0.1)") for _ in range(10)))
    assert len(receiver.received) == MAX_CONCURRENT
    receiver.hold.set()
    await replica.sender.aclose()
    await replica.round()
    assert await _is_empty(replica)


async def test_a_receiver_that_is_down_gets_one_request_at_a_time(
    replica: Replica, receiver: Receiver, clock: ManualClock
) -> None:
    receiver.answer = head(500)
    for _ in range(MAX_CONCURRENT * 2):
        await replica.make_grant(clock.now())
    await replica.round()
    assert len(receiver.received) == MAX_CONCURRENT
    await replica.round()
    await replica.round()
    assert len(receiver.received) == MAX_CONCURRENT + 2
    receiver.answer = head(204)
    await replica.round()
    await replica.round()
    assert len(receiver.received) == MAX_CONCURRENT * 2


async def test_tokens_and_grant_changes_do_not_wait_for_a_hanging_receiver(
    world: World, receiver: Receiver
) -> None:
    receiver.hold = asyncio.Event()
    for number in range(12):
        assert (await world.connect(f"user-{number}")).response.status_code == 200
    assert (await world.token("user-0")).status_code == 200
    assert (await world.revoke("user-0")).status_code == 204
    receiver.hold.set()
    await receiver.wait_for(13)


async def test_without_a_receiver_events_are_deleted_after_an_hour(
    replica: Replica, clock: ManualClock, receiver: Receiver
) -> None:
    no_receiver = NoWebhookReceiver(WebhookOutbox(replica.database, clock))
    await replica.make_grant(clock.now())
    clock.advance(timedelta(minutes=59))
    await no_receiver.tidy()
    assert len(await _rows(replica)) == 1
    clock.advance(timedelta(minutes=2))
    await no_receiver.tidy()
    assert await _is_empty(replica)
    assert receiver.received == []


async def test_without_a_receiver_many_events_are_deleted_in_portions(
    replica: Replica, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "_PURGED_AT_ONCE", 2)
    no_receiver = NoWebhookReceiver(WebhookOutbox(replica.database, clock))
    for _ in range(3):
        await replica.make_grant(clock.now())
    clock.advance(timedelta(hours=2))
    await no_receiver.tidy()
    assert len(await _rows(replica)) == 1
    await no_receiver.tidy()
    assert await _is_empty(replica)


async def test_a_replica_without_a_receiver_keeps_the_events_that_another_sends(
    replica: Replica, clock: ManualClock, receiver: Receiver
) -> None:
    receiver.answer = head(500)
    no_receiver = NoWebhookReceiver(WebhookOutbox(replica.database, clock))
    grant_id = await replica.make_grant(clock.now())
    await replica.round()
    await replica.set_status(grant_id, "revoked", clock.now())
    clock.advance(timedelta(hours=2))
    await no_receiver.tidy()
    assert len(await _rows(replica)) == 2


async def test_the_signature_equals_that_of_the_standard_webhooks_library(
    replica: Replica, receiver: Receiver, clock: ManualClock
) -> None:
    await replica.make_grant(clock.now())
    await replica.round()
    (received,) = receiver.received
    expected = Webhook(SECRET).sign(received.id, clock.now(), received.body.decode())
    assert received.headers["webhook-signature"] == expected
    assert received.headers["webhook-timestamp"] == str(int(clock.epoch()))
    assert received.headers["content-type"] == "application/json"


async def test_an_event_whose_result_could_not_be_stored_is_sent_again(
    replica: Replica,
    receiver: Receiver,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The receiver accepted it; it arrives again with the same id."""
    await replica.make_grant(clock.now())
    receiver.hold = asyncio.Event()
    await replica.sender.send_due()
    await receiver.wait_for(1)
    with monkeypatch.context() as patched:
        patched.setattr(outbox, "_SQL", {**outbox._SQL, "finish": _DIES_FINISHING})
        receiver.hold.set()
        await replica.sender.aclose()
    assert [r for r in caplog.records if getattr(r, "event", "") == "webhook_result_not_stored"]
    clock.advance(LEASE + timedelta(seconds=1))
    await replica.round()
    first, second = receiver.received
    assert first.id == second.id
    assert await _is_empty(replica)
