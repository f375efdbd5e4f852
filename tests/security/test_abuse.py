"""Rate and concurrency limits: they apply to known and unauthenticated clients, each on its own."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
from starlette.types import Message

from broker.callers import authentication_limits as attempts
from broker.callers import limits
from broker.callers.keys import new_key
from broker.limits import public_rate_limit as public_limits
from broker.pages.frame import STATIC_PATH
from devstack.google_standin import GoogleStandin
from tests.exchange.harness import basic, exchange
from tests.support.clock import ManualClock
from tests.support.issuer import OidcIssuer
from tests.support.workloads import IssuerWorld, open_issuer_world
from tests.support.world import World, open_world, stanza

SLOWLY = {"requests_per_second": 0.01, "burst": 3}


@pytest.fixture(autouse=True)
def few_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "FAILURE_BURST", 5)
    monkeypatch.setattr(attempts, "FAILURES_PER_SECOND", 0.1)
    monkeypatch.setattr(public_limits, "REQUESTS_AT_ONCE", 5)
    monkeypatch.setattr(public_limits, "REQUESTS_PER_SECOND", 0.1)


FORMS = 3
JSON = {"Content-Type": "application/json"}


@pytest.fixture
async def few_forms(
    tmp_path: Path,
    database_url: str,
    standin: GoogleStandin,
    clock: ManualClock,
    issuer: OidcIssuer,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[IssuerWorld]:
    """A world that reads few forms of one address at a time."""
    monkeypatch.setattr(attempts, "CONCURRENT_FORMS", FORMS)
    monkeypatch.setattr(attempts, "_QUEUED_FORMS", 0)
    async with open_issuer_world(tmp_path, database_url, standin, clock, issuer) as opened:
        yield opened


@pytest.fixture
async def limited(
    tmp_path: Path, database_url: str, standin: GoogleStandin, clock: ManualClock
) -> AsyncIterator[tuple[World, dict[str, str]]]:
    """A world with a caller that has a rate limit, and its credential; a proxy is trusted."""
    key = new_key()
    changes = {"BROKER_TRUSTED_PROXIES": "127.0.0.1"}
    callers = {"limited": stanza(key, rate_limit=SLOWLY)}
    async with open_world(
        tmp_path, database_url, standin, clock, callers=callers, changes=changes
    ) as world:
        yield world, {"Authorization": f"Bearer {key}"}


def _is_rate_limited(answer: httpx2.Response) -> bool:
    return answer.status_code == 429 and int(answer.headers["retry-after"]) >= 1


async def test_a_caller_over_its_rate_limit_is_refused_on_every_route(
    limited: tuple[World, dict[str, str]],
) -> None:
    world, credential = limited
    await world.connect()
    for _ in range(3):
        got = await world.internal.get("/v1/users/user-1/token", headers=credential)
        assert got.status_code == 200
    refused = await asyncio.gather(
        world.internal.get("/v1/users/user-1/token", headers=credential),
        world.internal.get("/v1/users/user-1/grants", headers=credential),
        world.internal.post("/v1/tokens", json={"requests": []}, headers=credential),
        world.internal.delete("/v1/users/user-1/grants", headers=credential),
    )
    assert all(map(_is_rate_limited, refused))
    assert {answer.json()["code"] for answer in refused} == {"rate_limited"}
    assert (await world.token()).status_code == 200
    assert await world.metric("broker_rate_limited_total", caller="limited", limit="rate") == 4


async def test_each_item_of_a_batch_counts_against_the_rate_limit(
    limited: tuple[World, dict[str, str]],
) -> None:
    world, credential = limited
    items = {"requests": [{"user_id": f"user-{number}"} for number in range(50)]}
    first = await world.internal.post("/v1/tokens", json=items, headers=credential)
    assert first.status_code == 200
    again = await world.internal.get("/v1/users/user-1/token", headers=credential)
    assert _is_rate_limited(again)
    assert int(again.headers["retry-after"]) > 40 * 100


async def test_the_token_endpoint_reports_the_rate_limit_as_an_oauth_error(
    limited: tuple[World, dict[str, str]],
) -> None:
    world, credential = limited
    for _ in range(3):
        await world.internal.post("/oauth/token", data={"grant_type": "x"}, headers=credential)
    answer = await world.internal.post("/oauth/token", data={"grant_type": "x"}, headers=credential)
    assert _is_rate_limited(answer)
    assert answer.json()["error"] == "temporarily_unavailable"
    assert answer.json()["code"] == "rate_limited"


async def test_wrong_keys_are_rate_limited_and_valid_ones_are_not(world: World) -> None:
    async def guess(number: int) -> httpx2.Response:
        headers = {"Authorization": f"Bearer tb_{number}"}
        return await world.internal.get("/v1/users/user-1/grants", headers=headers)

    answers = await asyncio.gather(*map(guess, range(30)))
    assert sorted({answer.status_code for answer in answers}) == [401, 429]
    assert sum(answer.status_code == 401 for answer in answers) == 5
    assert (await world.token("unknown-user")).status_code == 404
    assert await world.metric("broker_rate_limited_total", caller="-", limit="failures") == 25


async def test_forged_jwts_do_not_block_a_valid_one(issuer_world: IssuerWorld) -> None:
    good = issuer_world.issuer.mint()
    forged = good.rpartition(".")[0] + "." + "A" * 342

    async def forge(number: int) -> httpx2.Response:
        return await issuer_world.token_as(f"{forged[:-4]}{number:04d}")

    answers = await asyncio.gather(*map(forge, range(12)))
    assert {answer.status_code for answer in answers} <= {401, 429}
    assert (await issuer_world.token_as(good)).status_code in (200, 404)


async def test_endless_forms_are_bounded_and_do_not_block_known_callers(
    few_forms: IssuerWorld,
) -> None:
    world, never = few_forms.world, asyncio.Event()

    async def half_a_form() -> AsyncIterator[bytes]:
        yield b"grant_type="
        await never.wait()

    async def begin(headers: dict[str, str]) -> httpx2.Response:
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        return await world.internal.post(
            "/oauth/token", content=half_a_form(), headers=kind | headers
        )

    slow = [asyncio.create_task(begin({})) for _ in range(FORMS)]
    await asyncio.sleep(0)
    one_more = await begin({})
    assert _is_rate_limited(one_more)
    assert one_more.json()["code"] == "rate_limited"
    name = "broker_rate_limited_total"
    assert await world.metric(name, caller="-", limit="overload") == 1
    secret = {"client_id": "calendar-sync", "client_secret": world.key}
    for headers in (world.authorization, basic("calendar-sync", world.key)):
        assert (await exchange(few_forms, headers)).status_code == 200
    # A caller that authenticates by a form not yet sent can't be distinguished from them.
    assert _is_rate_limited(await exchange(few_forms, {}, **secret))
    # A caller's own forms count only against itself.
    slow += [asyncio.create_task(begin(world.authorization)) for _ in range(FORMS)]
    await asyncio.sleep(0)
    assert _is_rate_limited(await exchange(few_forms))
    jwt = {"Authorization": f"Bearer {few_forms.issuer.mint()}"}
    assert (await few_forms.token_as(jwt["Authorization"].removeprefix("Bearer "))).is_success
    assert (await exchange(few_forms, jwt)).status_code == 200
    never.set()
    # The unauthenticated ones, and the caller's.
    assert [(await each).status_code for each in slow] == [401] * FORMS + [400] * FORMS
    assert (await exchange(few_forms, {}, **secret)).status_code == 200


async def test_a_batch_counts_as_running_until_its_answer_was_read(
    issuer_world: IssuerWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "REFUSAL_DELAY_SECONDS", 0)
    world, read = issuer_world.world, asyncio.Event()
    body = json.dumps({"requests": [{"user_id": "user-1"}]}).encode()
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/tokens",
        "raw_path": b"/v1/tokens",
        "query_string": b"",
        "headers": [
            (b"authorization", f"Bearer {world.key}".encode()),
            (b"content-type", b"application/json"),
        ],
        "client": ("127.0.0.1", 1),
    }
    begun = asyncio.Semaphore(0)

    async def receive() -> Message:
        return {"type": "http.request", "body": body}

    async def send(message: Message) -> None:
        if message.get("more_body"):
            begun.release()
        elif message["type"] == "http.response.body":
            # As the server does while its write buffer is full.
            await read.wait()

    tasks = [
        asyncio.ensure_future(world.broker.internal({**scope}, receive, send))
        for _ in range(limits.CONCURRENT_BATCHES)
    ]
    async with asyncio.timeout(5):
        for _ in tasks:
            await begun.acquire()
    asking = asyncio.ensure_future(
        world.internal.post("/v1/tokens", content=body, headers=dict(JSON, **world.authorization))
    )
    await asyncio.sleep(0.2)
    assert not asking.done()
    # Other callers are not affected.
    workload = {"Authorization": f"Bearer {issuer_world.issuer.mint()}"}
    other = await world.internal.post("/v1/tokens", content=body, headers=dict(JSON, **workload))
    assert other.status_code == 200
    read.set()
    await asyncio.gather(*tasks)
    assert (await asking).status_code == 200


async def test_many_requests_from_one_address_do_not_delay_another_address(
    limited: tuple[World, dict[str, str]],
) -> None:
    world, _ = limited

    def ask(address: str, credential: str) -> asyncio.Task[httpx2.Response]:
        headers = {"X-Forwarded-For": address, "Authorization": credential}
        return asyncio.create_task(world.public.get(f"{STATIC_PATH}/style.css", headers=headers))

    crowd = [ask("192.0.2.1", f"Bearer {number}") for number in range(200)]
    assert (await ask("192.0.2.2", "")).status_code == 200
    assert sum(each.done() for each in crowd) < 100
    assert {answer.status_code for answer in await asyncio.gather(*crowd)} == {200}


async def test_an_address_over_its_rate_limit_gets_a_page_and_another_is_served(
    limited: tuple[World, dict[str, str]],
) -> None:
    world, _ = limited

    async def open_from(address: str, **headers: str) -> httpx2.Response:
        return await world.public.get(
            "/auth/google/authorize/user-1",
            headers={"X-Forwarded-For": f"203.0.113.9, {address}", **headers},
        )

    answers = [await open_from("192.0.2.1") for _ in range(6)]
    assert [answer.status_code for answer in answers] == [400] * 5 + [429]
    assert _is_rate_limited(answers[-1])
    assert "Too many requests" in answers[-1].text
    korean = await open_from("192.0.2.1", **{"Accept-Language": "ko"})
    assert "요청이 너무 많아요" in korean.text
    assert (await open_from("192.0.2.2")).status_code == 400
    events = await world.public.post(
        "/auth/google/risc", content=b"x", headers={"X-Forwarded-For": "192.0.2.1"}
    )
    assert _is_rate_limited(events)
    assert events.content == b""
    for answer in (answers[-1], events):
        assert answer.headers["cache-control"] == "no-store"
