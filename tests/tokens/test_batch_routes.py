"""`POST /v1/tokens`: each item gets the answer that it would get alone, and delays no other."""

import asyncio
import json
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

from broker.audit.trail import AuditTrail
from broker.callers.keys import new_key
from broker.clock import rfc3339
from broker.grants.store import GrantStore
from broker.tokens import batch
from broker.tokens import routes as batch_routes
from broker.tokens.routes import BATCH_BODY_LIMIT
from broker.tokens.token_request import read_items
from devstack.google_standin import Fault, GoogleStandin
from devstack.postgres import EmbeddedPostgres
from tests.support.clock import ManualClock
from tests.support.scopes import CALENDAR, CALENDAR_READONLY, GMAIL_READONLY
from tests.support.world import GRACE, World, open_world, stanza


async def ask(world: World, *items: Any, **headers: str) -> httpx2.Response:
    """Send a batch of these items."""
    return await world.internal.post(
        "/v1/tokens", json={"requests": list(items)}, headers=world.authorization | headers
    )


async def results(world: World, *items: Any) -> list[dict[str, Any]]:
    """Send a batch of these items and return its results."""
    answer = await ask(world, *items)
    assert answer.status_code == 200, answer.text
    listed: list[dict[str, Any]] = answer.json()["results"]
    return listed


def of(user_id: str = "user-1", **more: Any) -> dict[str, Any]:
    return {"user_id": user_id, **more}


async def connected(world: World, *user_ids: str) -> None:
    for user_id in user_ids:
        assert (await world.connect(user_id)).response.status_code == 200


async def send(world: World, content: bytes, **headers: str) -> httpx2.Response:
    """Send these bytes as a batch."""
    return await world.internal.post(
        "/v1/tokens",
        content=content,
        headers={**world.authorization, "Content-Type": "application/json", **headers},
    )


async def test_each_result_is_that_of_a_single_request_and_in_its_place(world: World) -> None:
    await connected(world, "user-1", "user-2")
    first, second, nobody = await results(world, of("user-2"), of("user-1"), of("user-3"))
    assert first == (await world.token("user-2")).json()
    assert second == (await world.token("user-1")).json()
    assert nobody["error"]["code"] == "grant_not_found"


async def test_the_work_on_several_batches_is_spread_over_event_loop_iterations(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    iterations, read_in = 0, []

    def count() -> None:
        nonlocal iterations
        iterations += 1
        loop.call_soon(count)

    def noting_the_iteration(body: bytes) -> Sequence[object]:
        read_in.append(iterations)
        return read_items(body)

    monkeypatch.setattr(batch_routes, "read_items", noting_the_iteration)
    count()
    await asyncio.gather(*(ask(world, of("nobody")) for _ in range(8)))
    assert len(set(read_in)) == 8


async def test_an_error_is_the_problem_of_a_single_request(world: World) -> None:
    await world.connect()
    (result,) = await results(world, of(scope=CALENDAR))
    alone = (await world.token(scope=CALENDAR)).json()
    assert result["error"] | {"request_id": ""} == alone | {"request_id": ""}


async def test_the_answer_is_not_stored_and_has_the_request_id(world: World) -> None:
    await world.connect()
    for _ in range(2):
        answer = await ask(world, of(), of("nobody"), **{"X-Request-Id": "my-batch"})
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-request-id"] == "my-batch"
        assert answer.json()["results"][1]["error"]["request_id"] == "my-batch"


async def test_scope_account_and_min_ttl_mean_the_same_as_in_a_single_request(world: World) -> None:
    await world.connect(scopes=[CALENDAR, CALENDAR_READONLY])
    await world.connect(account=GRACE)
    narrow, other = await results(
        world, of(scope=CALENDAR_READONLY, min_ttl=300), of(account=GRACE)
    )
    assert narrow["scope"] == CALENDAR_READONLY
    assert other["account"]["email"] == GRACE


async def test_a_cached_batch_calls_neither_google_nor_postgresql(
    world: World, postgres: EmbeddedPostgres, database_name: str
) -> None:
    await connected(world, "user-1", "user-2")
    before = await results(world, of("user-1"), of("user-2"))
    refreshes = world.refreshes_at_google()
    postgres.drop_database(database_name)
    assert await results(world, of("user-2"), of("user-1")) == before[::-1]
    assert world.refreshes_at_google() == refreshes


async def test_the_remaining_seconds_count_down(world: World) -> None:
    await world.connect()
    (before,) = await results(world, of())
    world.clock.advance(timedelta(minutes=10))
    (after,) = await results(world, of())
    assert before["expires_in"] - after["expires_in"] == 600


async def test_a_cached_item_that_is_valid_for_less_than_min_ttl_is_refreshed(world: World) -> None:
    await world.connect()
    (before,) = await results(world, of())
    world.clock.advance(timedelta(minutes=59, seconds=30))
    (content,) = await results(world, of(min_ttl=10))
    (after,) = await results(world, of())
    assert content["access_token"] == before["access_token"] != after["access_token"]


async def test_the_grants_of_cold_items_are_read_together(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await connected(world, "user-1", "user-2", "user-3")
    await results(world, of("user-1"))
    read: list[set[str]] = []
    find_many = GrantStore.find_many

    async def noted(store: GrantStore, user_ids: Sequence[str]) -> Any:
        read.append(set(user_ids))
        return await find_many(store, user_ids)

    monkeypatch.setattr(GrantStore, "find_many", noted)
    await results(world, of("user-1"), of("user-2"), of("user-3"), of("user-4"), of("user-2"))
    assert read == [{"user-2", "user-3", "user-4"}]


async def test_a_user_who_is_requested_twice_is_refreshed_once(world: World) -> None:
    await world.connect()
    await world.token()
    world.clock.advance(timedelta(hours=1))
    before = world.refreshes_at_google()
    answered = await results(world, of(), of(min_ttl=61), of())
    assert len({result["access_token"] for result in answered}) == 1
    assert world.refreshes_at_google() == before + 1


async def test_a_refresh_is_shared_with_single_requests(world: World) -> None:
    await world.connect()
    await world.token()
    world.clock.advance(timedelta(hours=1))
    before = world.refreshes_at_google()
    (result,), alone = await asyncio.gather(results(world, of()), world.token())
    assert result["access_token"] == alone.json()["access_token"]
    assert world.refreshes_at_google() == before + 1


async def test_a_user_that_google_refuses_fails_alone(world: World) -> None:
    await connected(world, "user-1", "user-2")
    await world.token("user-2")
    world.standin.faults.next("token", Fault.invalid_grant())
    dead, well = await results(world, of("user-1"), of("user-2"))
    assert dead["error"]["code"] == "reauthorization_required"
    assert dead["error"]["reason"] == "invalid_grant"
    assert "access_token" in well


async def test_an_outage_of_google_says_when_to_retry(world: World) -> None:
    await world.connect()
    world.standin.faults.always("token", Fault.http(503))
    (result,) = await results(world, of())
    assert result["error"]["code"] == "google_unavailable"
    assert result["error"]["retry_after"] >= 1


async def test_a_slow_user_holds_the_batch_up_only_until_the_deadline(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await connected(world, "slow", "user-2")
    await world.token("user-2")
    monkeypatch.setattr(batch, "DEADLINE", timedelta(seconds=0.5))
    world.standin.faults.next("token", Fault.hold("silence"))
    # A call to Google itself times out after eight seconds.
    async with asyncio.timeout(7):
        slow, well = await results(world, of("slow"), of("user-2"))
    assert slow["error"]["code"] == "google_unavailable"
    assert "access_token" in well
    world.standin.holds.release("silence")


async def test_while_storage_is_unavailable_cached_items_are_answered(
    world: World, postgres: EmbeddedPostgres, database_name: str
) -> None:
    await connected(world, "user-1", "user-2", "user-3")
    await results(world, of("user-1"), of("user-2"))
    world.clock.advance(timedelta(minutes=59, seconds=30))
    await results(world, of("user-1"))
    postgres.drop_database(database_name)
    warm, short, cold = await results(world, of("user-1"), of("user-2"), of("user-3"))
    assert "access_token" in warm
    assert 0 < short["expires_in"] <= 30
    assert cold["error"]["code"] == "storage_unavailable"
    assert cold["error"]["retry_after"] >= 1


async def test_a_revoked_grant_is_refused_although_its_token_was_cached(world: World) -> None:
    await connected(world, "user-1", "user-2")
    await results(world, of("user-1"), of("user-2"))
    await world.revoke("user-1")
    revoked, well = await results(world, of("user-1"), of("user-2"))
    assert revoked["error"]["code"] == "grant_not_found"
    assert "access_token" in well


async def test_a_grant_that_is_revoked_during_the_batch_is_refused(world: World) -> None:
    await connected(world, "slow", "user-2")
    assert "access_token" in (await results(world, of("user-2")))[0]
    world.standin.faults.next("token", Fault.hold("silence"))
    waiting = asyncio.create_task(results(world, of("slow"), of("user-2")))
    await asyncio.to_thread(world.standin.holds.wait_until_held, "silence")
    await world.revoke("user-2")
    world.standin.holds.release("silence")
    slow, revoked = await waiting
    assert "access_token" in slow
    assert revoked["error"]["code"] == "grant_not_found"


async def test_a_user_or_scope_beyond_the_policy_is_refused_alone(
    tmp_path: Path, database_url: str, standin: GoogleStandin, clock: ManualClock
) -> None:
    key = new_key()
    callers = {"reader": stanza(key, can=["tokens:read"], users=["user-1"])}
    async with open_world(tmp_path, database_url, standin, clock, callers=callers) as world:
        await connected(world, "user-1", "user-2")
        answer = await ask(
            world,
            of("user-1"),
            of("user-2"),
            of("user-1", scope=GMAIL_READONLY),
            Authorization=f"Bearer {key}",
        )
        good, forbidden, beyond = answer.json()["results"]
        assert "access_token" in good
        assert forbidden["error"]["code"] == "forbidden"
        assert (beyond["error"]["code"], beyond["error"]["scopes"]) == (
            "scope_not_allowed",
            [GMAIL_READONLY],
        )


async def test_a_new_policy_applies_immediately_to_cached_items(world: World) -> None:
    await connected(world, "user-1", "user-2")
    await results(world, of("user-1"), of("user-2"))
    await world.rewrite_callers({"calendar-sync": stanza(world.key, users=["user-1"])})
    allowed, forbidden = await results(world, of("user-1"), of("user-2"))
    assert "access_token" in allowed
    assert forbidden["error"]["code"] == "forbidden"


async def test_a_caller_without_the_permission_is_refused_the_whole_batch(world: World) -> None:
    await world.rewrite_callers({"calendar-sync": stanza(world.key, can=["grants:read"])})
    answer = await ask(world, of())
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


@pytest.mark.parametrize(
    ("item", "field"),
    [
        ({}, "user_id"),
        ({"user_id": ""}, "user_id"),
        ({"user_id": "x" * 256}, "user_id"),
        ({"user_id": "a\x00"}, "user_id"),
        ({"user_id": "\ud800"}, "user_id"),
        ({"user_id": 7}, "user_id"),
        ({"user_id": None}, "user_id"),
        (of(scope=""), "scope"),
        (of(scope="\u00e9"), "scope"),
        (of(scope=[CALENDAR_READONLY]), "scope"),
        (of(account=""), "account"),
        (of(account={"sub": "1"}), "account"),
        (of(min_ttl="60"), "min_ttl"),
        (of(min_ttl=-1), "min_ttl"),
        (of(min_ttl=1.5), "min_ttl"),
        (of(min_ttl=True), "min_ttl"),
        (of(min_ttl=86_401), "min_ttl"),
        (of(min_ttl=10**30), "min_ttl"),
    ],
    ids=str,
)
async def test_a_malformed_value_is_that_items_error(
    world: World, item: dict[str, Any], field: str
) -> None:
    await world.connect()
    answer = await send(world, json.dumps({"requests": [item, of()]}).encode())
    malformed, good = answer.json()["results"]
    assert (malformed["error"]["code"], malformed["error"]["field"]) == ("invalid_request", field)
    assert "access_token" in good


async def test_braces_and_commas_within_a_string_are_no_items(world: World) -> None:
    (result,) = await results(world, of("{,," * 80))
    assert result["error"]["code"] == "grant_not_found"
    listed = await results(world, *[of("{,," * 80)] * 60)
    assert {each["error"]["code"] for each in listed} == {"grant_not_found"}


async def test_true_does_not_match_a_cached_one(world: World) -> None:
    await world.connect()
    for _ in range(2):
        assert "access_token" in (await results(world, of(min_ttl=1)))[0]
    (result,) = await results(world, of(min_ttl=True))
    assert result["error"]["field"] == "min_ttl"


@pytest.mark.parametrize(
    ("content", "field"),
    [
        (b"", "body"),
        (b"{", "body"),
        (b"\xff", "body"),
        (b"[]", "body"),
        (b"{}", "body"),
        (b'{"requests": [NaN]}', "body"),
        (b"[" * 100_000, "body"),
        (b'{"requests": [{"user_id": "user-1"}], "more": 1}', "body"),
        (b'{"requests": [{"user_id": "user-1"}], "requests": []}', "body"),
        (b'{"requests": {}}', "requests"),
        (b'{"requests": null}', "requests"),
        (b'{"requests": []}', "requests"),
        # Parsed only until there is more than items could hold.
        (b'{"requests": [' + b"{}," * 1002 + b"oops", "requests"),
        (b'{"requests": [' + b"0," * 4001 + b"oops", "requests"),
        (b'{"requests": ["user-1"]}', "requests[0]"),
        (b'{"requests": [{"user_id": "user-1"}, []]}', "requests[1]"),
        (b'{"requests": [{"user_id": "user-1"}, {"user": "user-1"}]}', "requests[1]"),
        (b'{"requests": [{"user_id": "user-1", "user_id": "user-2"}]}', "requests[0]"),
        (b'{"requests": [' + b",".join([b'{"user_id": "u"}'] * 1001) + b"]}", "requests"),
    ],
    ids=lambda value: str(value)[:60],
)
async def test_a_wrong_structure_refuses_the_whole_batch(
    world: World, content: bytes, field: str
) -> None:
    await world.connect()
    answer = await send(world, content)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
    assert answer.json()["field"] == field
    assert await world.metric("broker_token_requests_total") == 0


async def test_a_thousand_items_are_answered(world: World) -> None:
    await world.connect()
    items = [of(f"user-{number}") for number in range(1000)]
    for _ in range(2):
        answered = await results(world, *items)
        assert len(answered) == 1000
        assert [place for place, each in enumerate(answered) if "access_token" in each] == [1]


async def test_a_body_over_the_limit_is_refused(world: World) -> None:
    answer = await send(world, b" " * (BATCH_BODY_LIMIT + 1))
    assert (answer.status_code, answer.json()["code"]) == (413, "invalid_request")


@pytest.mark.parametrize("value", [b"[]", b"{}", b"1", b'""', b"null"])
async def test_many_more_values_than_items_have_are_not_parsed(
    world: World, value: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(json, "loads", None)
        answer = await send(world, b'{"requests":[%b]}' % b",".join([value] * 40_000))
    assert (answer.status_code, answer.json()["field"]) == (400, "requests")


async def test_commas_in_user_ids_are_no_values(world: World) -> None:
    user_id = "a,b,c,d,e,f,g"
    await world.connect(user_id)
    assert all("access_token" in each for each in await results(world, *[of(user_id)] * 1000))


async def test_malformed_items_are_audited_by_their_caller(world: World) -> None:
    await send(world, b"{}", **{"X-Request-Id": "whole"})
    await ask(world, of(scope=""), of(min_ttl="x"), **{"X-Request-Id": "items"})
    async with asyncio.timeout(5):
        records = await _audited(world, 2)
    assert records == [
        ("request_refused", "invalid_request", None, None, "whole", 1),
        ("token_refused", "invalid_request", None, None, "items", 2),
    ]


async def test_a_flood_of_batches_displaces_no_audit_records_and_is_counted(
    tmp_path: Path,
    database_url: str,
    standin: GoogleStandin,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(AuditTrail.__init__.__kwdefaults__ or {}, "capacity", 500)
    async with open_world(tmp_path, database_url, standin, clock) as world:
        await world.connect()
        await results(world, of())
        answers = await asyncio.gather(
            *(ask(world, *[of()] * 100) for _ in range(20)), *(world.token() for _ in range(20))
        )
        assert {answer.status_code for answer in answers} == {200}
    query = "SELECT outcome FROM audit_events WHERE action = 'token_handed_out'"
    outcomes = [row["outcome"] for row in await world.sql(query)]
    numbers = [int(outcome.split(":")[1]) for outcome in outcomes if outcome != "ok"]
    assert sum(numbers) > 0
    assert sum(numbers) % 100 == 0
    assert outcomes.count("ok") + sum(numbers) == 1 + 20 * 100 + 20


async def test_a_body_of_another_media_type_is_refused(world: World) -> None:
    answer = await send(world, b"{}", **{"Content-Type": "text/plain"})
    assert (answer.status_code, answer.json()["code"]) == (415, "invalid_request")


async def test_each_item_is_counted_and_audited_cold_or_cached(world: World) -> None:
    await world.connect()
    for number in range(2):
        await ask(world, of(), of("nobody"), of(), **{"X-Request-Id": f"batch-{number}"})
    name = "broker_token_requests_total"
    assert await world.metric(name, caller="calendar-sync", outcome="ok") == 4
    assert await world.metric(name, caller="calendar-sync", outcome="grant_not_found") == 2
    async with asyncio.timeout(5):
        records = await _audited(world, 4)
    assert records == [
        ("token_handed_out", "ok", "user-1", [CALENDAR_READONLY], "batch-0", 2),
        ("token_handed_out", "ok", "user-1", [CALENDAR_READONLY], "batch-1", 2),
        ("token_refused", "grant_not_found", "nobody", None, "batch-0", 1),
        ("token_refused", "grant_not_found", "nobody", None, "batch-1", 1),
    ]


AUDITED = """
    SELECT action, outcome, user_id, scopes, request_id, count(*)::int FROM audit_events
    WHERE action IN ('token_handed_out', 'token_refused', 'request_refused')
    GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5
"""


async def _audited(world: World, at_least: int) -> list[tuple[Any, ...]]:
    while True:
        records = await world.sql(AUDITED)
        if len(records) >= at_least:
            return [tuple(record.values()) for record in records]
        await asyncio.sleep(0.05)


async def test_the_last_use_of_a_cached_item_is_recorded(world: World) -> None:
    await world.connect()
    await results(world, of())
    world.clock.advance(timedelta(minutes=5))
    await results(world, of())
    (grant,) = await world.grants()
    assert grant["last_used_at"] == rfc3339(world.clock.now())
