"""Each documented problem really comes out, in its documented shape; and no other does."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import httpx2
import pytest

from broker.callers.keys import new_key
from devstack.google_standin import Fault, GoogleStandin
from devstack.postgres import EmbeddedPostgres
from tests.exchange.harness import basic, exchange
from tests.openapi import description
from tests.support.clock import ManualClock
from tests.support.scopes import CALENDAR, CALENDAR_READONLY, GMAIL_READONLY
from tests.support.workloads import IssuerWorld
from tests.support.world import GRACE, World, open_world
from tests.support.world import stanza as caller

TOKEN = "/v1/users/{user_id}/token"
LINKS = "/v1/users/{user_id}/connect-links"
CONNECTIONS_LINKS = "/v1/users/{user_id}/connections-links"
GRANTS = "/v1/users/{user_id}/grants"
GRANT = "/v1/users/{user_id}/grants/{sub}"

TOKENS = "/v1/tokens"
EXCHANGE = "/oauth/token"

LINK_ID = "7c9e6679-7425-40de-944b-e07fc1f90ae7"
CONFIRM = "/v1/connect-links/{id}/confirm"

OPERATIONS = (
    (TOKEN, "GET"),
    (LINKS, "POST"),
    (CONNECTIONS_LINKS, "POST"),
    (GRANTS, "GET"),
    (GRANTS, "DELETE"),
    (GRANT, "DELETE"),
    (CONFIRM, "POST"),
)

_BODIES = {
    LINKS: {"scopes": [CALENDAR_READONLY]},
    CONNECTIONS_LINKS: {},
    CONFIRM: {"code": "x"},
}

KATHERINE = "katherine@example.org"

TRIED_HERE = {
    "invalid_request",
    "unauthenticated",
    "forbidden",
    "scope_not_allowed",
    "grant_not_found",
    "reauthorization_required",
    "scope_not_granted",
    "account_ambiguous",
    "confirmation_pending",
    "confirmation_invalid",
    "google_unavailable",
    "storage_unavailable",
    "client_misconfigured",
    "issuer_unavailable",
    "rate_limited",
}


def refused(
    answer: httpx2.Response, status: int, code: str, *, path: str = TOKEN, method: str = "GET"
) -> httpx2.Response:
    """The answer, once it was found to be this problem as documented for this operation."""
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.json()["status"] == status
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    description.check(path, method, answer)
    return answer


@pytest.fixture
async def reader(
    tmp_path: Path, database_url: str, standin: GoogleStandin, clock: ManualClock
) -> AsyncIterator[tuple[World, dict[str, str]]]:
    """A world with a caller that may read tokens of user-1 only, and its credential."""
    key = new_key()
    callers = {"reader": caller(key, can=["tokens:read"], users=["user-1"])}
    async with open_world(tmp_path, database_url, standin, clock, callers=callers) as world:
        yield world, {"Authorization": f"Bearer {key}"}


def test_no_code_is_documented_that_is_not_tried_here() -> None:
    assert description.problem_codes() == TRIED_HERE


async def test_invalid_request(world: World) -> None:
    answer = refused(await world.token(min_ttl="soon"), 400, "invalid_request")
    assert answer.json()["field"] == "min_ttl"


async def test_invalid_request_for_a_body_that_is_not_json(world: World) -> None:
    answer = await world.internal.post(
        "/v1/users/user-1/connect-links",
        content=b"{",
        headers={**world.authorization, "Content-Type": "application/json"},
    )
    refused(answer, 400, "invalid_request", path=LINKS, method="POST")


async def test_invalid_request_for_a_body_that_does_not_say_json(world: World) -> None:
    answer = await world.internal.post(
        "/v1/users/user-1/connect-links", content=b"{}", headers=world.authorization
    )
    refused(answer, 415, "invalid_request", path=LINKS, method="POST")


async def test_invalid_request_for_a_body_that_is_too_long(world: World) -> None:
    answer = await world.create_link("user-1", login_hint="x" * 70_000)
    refused(answer, 413, "invalid_request", path=LINKS, method="POST")


async def test_unauthenticated(world: World) -> None:
    for path, method in OPERATIONS:
        address = path.format(user_id="user-1", sub="1", id=LINK_ID)
        answer = await world.internal.request(
            method, address, headers={"Authorization": "Bearer x"}
        )
        refused(answer, 401, "unauthenticated", path=path, method=method)
        assert answer.headers["www-authenticate"] == "Bearer"


async def test_forbidden_for_what_the_caller_may_not_do(
    reader: tuple[World, dict[str, str]],
) -> None:
    world, credential = reader
    answer = await world.internal.delete("/v1/users/user-1/grants", headers=credential)
    refused(answer, 403, "forbidden", path=GRANTS, method="DELETE")


async def test_forbidden_for_a_user_of_another_caller(reader: tuple[World, dict[str, str]]) -> None:
    world, credential = reader
    answer = await world.internal.get("/v1/users/user-2/token", headers=credential)
    refused(answer, 403, "forbidden")


async def test_scope_not_allowed_for_a_token(world: World) -> None:
    answer = refused(await world.token(scope=GMAIL_READONLY), 403, "scope_not_allowed")
    assert answer.json()["scopes"] == [GMAIL_READONLY]


async def test_scope_not_allowed_for_a_link(world: World) -> None:
    answer = await world.create_link("user-1", scopes=[GMAIL_READONLY])
    refused(answer, 403, "scope_not_allowed", path=LINKS, method="POST")


async def test_grant_not_found(world: World) -> None:
    refused(await world.token(), 404, "grant_not_found")


async def test_reauthorization_required(world: World) -> None:
    await world.connect()
    world.standin.faults.next("token", Fault.invalid_grant(), times=1)
    answer = refused(await world.token(), 409, "reauthorization_required")
    assert answer.json()["reason"] == "invalid_grant"


async def test_scope_not_granted(world: World) -> None:
    await world.connect()
    answer = refused(await world.token(scope=CALENDAR), 409, "scope_not_granted")
    assert answer.json()["missing"] == [CALENDAR]


async def test_account_ambiguous(world: World) -> None:
    await world.connect()
    for account in (GRACE, KATHERINE):
        await world.connect(account=account)
    default = next(grant for grant in await world.grants() if grant["default"])
    await world.revoke(sub=default["account"]["sub"])
    refused(await world.token(), 409, "account_ambiguous")


async def test_confirmation_pending(world: World) -> None:
    trip = await world.connect_pending()
    refused(await world.token(), 409, "confirmation_pending")
    answer = await world.confirm(trip)
    assert answer.status_code == 200
    description.check(CONFIRM, "POST", answer)


async def test_confirmation_invalid(world: World) -> None:
    trip = await world.connect_pending()
    answer = await world.confirm(trip, code="another")
    refused(answer, 409, "confirmation_invalid", path=CONFIRM, method="POST")


async def test_google_unavailable(world: World) -> None:
    await world.connect()
    world.standin.faults.next("token", Fault.http(503), times=1)
    answer = refused(await world.token(), 503, "google_unavailable")
    assert int(answer.headers["retry-after"]) >= 1


async def test_client_misconfigured(world: World) -> None:
    await world.connect()
    world.standin.faults.always("token", Fault.invalid_client())
    answer = refused(await world.token(), 503, "client_misconfigured")
    assert int(answer.headers["retry-after"]) >= 1


async def test_rate_limited(
    tmp_path: Path, database_url: str, standin: GoogleStandin, clock: ManualClock
) -> None:
    key = new_key()
    limit = {"requests_per_second": 0.01, "burst": 1}
    callers = {"limited": caller(key, rate_limit=limit)}
    credential = {"Authorization": f"Bearer {key}"}
    async with open_world(tmp_path, database_url, standin, clock, callers=callers) as world:
        await world.internal.get("/v1/users/user-1/token", headers=credential)
        for path, method in (*OPERATIONS, (TOKENS, "POST")):
            address = path.format(user_id="user-1", sub="1", id=LINK_ID)
            answer = await world.internal.request(method, address, headers=credential)
            refused(answer, 429, "rate_limited", path=path, method=method)
            assert int(answer.headers["retry-after"]) >= 1
        answer = await world.internal.post(EXCHANGE, data={"grant_type": "x"}, headers=credential)
        assert answer.status_code == 429
        description.check(EXCHANGE, "POST", answer)


async def test_issuer_unavailable(issuer_world: IssuerWorld) -> None:
    issuer_world.issuer.break_down()
    await issuer_world.world.rewrite_callers(
        issuer_world.callers(), issuer_world.issuers(algorithms=["RS256"])
    )
    credential = {"Authorization": f"Bearer {issuer_world.issuer.mint()}"}
    for path, method in (*OPERATIONS, (TOKENS, "POST")):
        address = path.format(user_id="user-1", sub="1", id=LINK_ID)
        answer = await issuer_world.world.internal.request(method, address, headers=credential)
        refused(answer, 503, "issuer_unavailable", path=path, method=method)
        assert int(answer.headers["retry-after"]) >= 1


async def test_unauthenticated_by_jwt(issuer_world: IssuerWorld) -> None:
    answer = await issuer_world.token_as(issuer_world.issuer.mint(aud="another"))
    refused(answer, 401, "unauthenticated")


async def test_an_exchange_is_answered_as_documented(issuer_world: IssuerWorld) -> None:
    good = await exchange(issuer_world)
    bad = [
        await exchange(issuer_world, grant_type=None),
        await exchange(issuer_world, scope=CALENDAR),
        await exchange(issuer_world, scope=GMAIL_READONLY),
        await exchange(issuer_world, subject_token="x"),
        await exchange(issuer_world, subject_token=issuer_world.users_jwt("user-2")),
        await exchange(issuer_world, audience="https://example.com"),
        await exchange(issuer_world, {}),
        await exchange(issuer_world, basic("calendar-sync", "x")),
        await exchange(issuer_world, scope="x" * 70_000),
    ]
    issuer_world.world.clock.advance(timedelta(hours=2))
    issuer_world.world.standin.faults.always("token", Fault.http(503))
    away = await exchange(issuer_world)
    assert [answer.status_code for answer in (good, *bad, away)] == [
        200, 400, 400, 400, 400, 400, 400, 401, 401, 413, 503,
    ]  # fmt: skip
    for answer in (good, *bad, away):
        description.check(EXCHANGE, "POST", answer)


async def test_storage_unavailable(
    world: World, postgres: EmbeddedPostgres, database_name: str
) -> None:
    postgres.drop_database(database_name)
    for path, method in OPERATIONS:
        answer = await world.internal.request(
            method,
            path.format(user_id="user-1", sub="1", id=LINK_ID),
            headers=world.authorization,
            json=_BODIES.get(path),
        )
        refused(answer, 503, "storage_unavailable", path=path, method=method)
        assert int(answer.headers["retry-after"]) >= 1


async def test_the_good_answers_are_as_documented(world: World) -> None:
    description.check(LINKS, "POST", await world.create_link("user-1"))
    await world.connect()
    description.check(TOKEN, "GET", await world.token())
    listed = await world.internal.get("/v1/users/user-1/grants", headers=world.authorization)
    description.check(GRANTS, "GET", listed)
    sub = listed.json()["grants"][0]["account"]["sub"]
    description.check(GRANT, "DELETE", await world.revoke(sub=sub))
    description.check(GRANTS, "DELETE", await world.revoke())


async def test_a_batch_is_answered_as_documented_whatever_its_items_get(world: World) -> None:
    await world.connect()
    await world.connect("user-2")
    await world.token("user-2")
    world.standin.faults.always("token", Fault.http(503))
    items: list[dict[str, object]] = [
        {"user_id": "user-1"},
        {"user_id": "user-2"},
        {"user_id": "user-3"},
        {"user_id": "user-2", "scope": CALENDAR},
        {"user_id": "user-2", "scope": GMAIL_READONLY},
        {"user_id": "user-2", "min_ttl": -1},
    ]
    answer = await _batch(world, *items)
    description.check(TOKENS, "POST", answer)
    codes = [result.get("error", {}).get("code") for result in answer.json()["results"]]
    assert codes == [
        "google_unavailable",
        None,
        "grant_not_found",
        "scope_not_granted",
        "scope_not_allowed",
        "invalid_request",
    ]


async def test_a_batch_that_is_refused_as_a_whole_is_refused_as_documented(
    reader: tuple[World, dict[str, str]],
) -> None:
    world, _ = reader
    refused(await _batch(world), 400, "invalid_request", path=TOKENS, method="POST")
    too_long = await _batch(world, {"user_id": "x" * 1_100_000})
    refused(too_long, 413, "invalid_request", path=TOKENS, method="POST")
    plain = await world.internal.post(TOKENS, content=b"{}", headers=world.authorization)
    refused(plain, 415, "invalid_request", path=TOKENS, method="POST")
    unknown = await world.internal.post(TOKENS, json={}, headers={"Authorization": "Bearer x"})
    refused(unknown, 401, "unauthenticated", path=TOKENS, method="POST")


async def _batch(world: World, *items: dict[str, object]) -> httpx2.Response:
    return await world.internal.post(TOKENS, json={"requests": items}, headers=world.authorization)


async def test_a_token_held_in_memory_is_answered_as_documented(world: World) -> None:
    await world.connect()
    await world.token()
    description.check(TOKEN, "GET", await world.token())


@pytest.mark.parametrize(
    ("path", "method"), [("/v1/nothing", "GET"), ("/v1/users/user-1/token", "PUT")]
)
async def test_what_does_not_exist_is_a_problem_too(world: World, path: str, method: str) -> None:
    answer = await world.internal.request(method, path, headers=world.authorization)
    expected = (405, "method_not_allowed") if method == "PUT" else (404, "not_found")
    assert (answer.status_code, answer.json()["code"]) == expected
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"


async def test_readiness_with_a_part_down_is_as_documented(world: World) -> None:
    description.check("/readyz", "GET", await world.ops.get("/readyz"))
    world.callers_file.write_text("callers: [", encoding="utf-8")
    async with asyncio.timeout(10):
        answer = await _no_longer_ready(world)
    assert (answer.status_code, answer.json()["status"]) == (200, "degraded")
    assert answer.json()["parts"]["callers_file"]["status"] == "down"
    description.check("/readyz", "GET", answer)


async def _no_longer_ready(world: World) -> httpx2.Response:
    while True:
        answer = await world.ops.get("/readyz")
        if answer.json()["status"] != "ready":
            return answer
        await asyncio.sleep(0.1)


async def test_unreadiness_is_as_documented(
    world: World, postgres: EmbeddedPostgres, database_name: str
) -> None:
    postgres.drop_database(database_name)
    answer = await world.ops.get("/readyz")
    assert (answer.status_code, answer.json()["status"]) == (503, "unavailable")
    description.check("/readyz", "GET", answer)
