"""Who asks for too much, known or not, is told to wait; nobody else is concerned."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from broker.callers import attempts
from broker.callers.keys import new_key
from broker.devstack.google_standin import GoogleStandin
from broker.web import public_limits
from tests.support.clock import ManualClock
from tests.support.workloads import Trusting
from tests.support.world import World, open_world, stanza

SLOWLY = {"requests_per_second": 0.01, "burst": 3}


@pytest.fixture(autouse=True)
def few_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "FAILURES_AT_ONCE", 5)
    monkeypatch.setattr(attempts, "FAILURES_PER_SECOND", 0.1)
    monkeypatch.setattr(public_limits, "REQUESTS_AT_ONCE", 5)
    monkeypatch.setattr(public_limits, "REQUESTS_PER_SECOND", 0.1)


@pytest.fixture
async def limited(
    tmp_path: Path, database_url: str, standin: GoogleStandin, clock: ManualClock
) -> AsyncIterator[tuple[World, dict[str, str]]]:
    """A world with a caller that has a rate limit, and its credential; a proxy is trusted."""
    key = new_key()
    changes = {"BROKER_TRUSTED_PROXIES": "127.0.0.1"}
    clients = {"limited": stanza(key, rate_limit=SLOWLY)}
    async with open_world(
        tmp_path, database_url, standin, clock, clients=clients, changes=changes
    ) as world:
        yield world, {"Authorization": f"Bearer {key}"}


def _is_told_to_wait(answer: httpx2.Response) -> bool:
    return answer.status_code == 429 and int(answer.headers["retry-after"]) >= 1


async def test_a_caller_over_its_rate_is_refused_on_every_route(
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
    assert all(map(_is_told_to_wait, refused))
    assert {answer.json()["code"] for answer in refused} == {"rate_limited"}
    assert (await world.token()).status_code == 200
    assert await world.metric("broker_rate_limited_total", client="limited", limit="rate") == 4


async def test_a_batch_counts_as_many_as_it_has_items(
    limited: tuple[World, dict[str, str]],
) -> None:
    world, credential = limited
    items = {"requests": [{"user_id": f"user-{number}"} for number in range(50)]}
    first = await world.internal.post("/v1/tokens", json=items, headers=credential)
    assert first.status_code == 200
    again = await world.internal.get("/v1/users/user-1/token", headers=credential)
    assert _is_told_to_wait(again)
    assert int(again.headers["retry-after"]) > 40 * 100


async def test_the_token_endpoint_says_it_in_its_own_words(
    limited: tuple[World, dict[str, str]],
) -> None:
    world, credential = limited
    for _ in range(3):
        await world.internal.post("/oauth/token", data={"grant_type": "x"}, headers=credential)
    answer = await world.internal.post("/oauth/token", data={"grant_type": "x"}, headers=credential)
    assert _is_told_to_wait(answer)
    assert answer.json()["error"] == "temporarily_unavailable"
    assert answer.json()["code"] == "rate_limited"


async def test_bad_keys_are_refused_ever_more_cheaply_and_good_ones_never(world: World) -> None:
    async def guess(number: int) -> httpx2.Response:
        headers = {"Authorization": f"Bearer tb_{number}"}
        return await world.internal.get("/v1/users/user-1/grants", headers=headers)

    answers = await asyncio.gather(*map(guess, range(30)))
    assert sorted({answer.status_code for answer in answers}) == [401, 429]
    assert sum(answer.status_code == 401 for answer in answers) == 5
    assert (await world.token("nobody")).status_code == 404
    assert await world.metric("broker_rate_limited_total", client="-", limit="failures") == 25


async def test_forged_jwts_keep_no_good_one_out(trusting: Trusting) -> None:
    good = trusting.issuer.mint()
    forged = good.rpartition(".")[0] + "." + "A" * 342

    async def forge(number: int) -> httpx2.Response:
        return await trusting.token_as(f"{forged[:-4]}{number:04d}")

    answers = await asyncio.gather(*map(forge, range(12)))
    assert {answer.status_code for answer in answers} <= {401, 429}
    assert (await trusting.token_as(good)).status_code in (200, 404)


async def test_an_address_that_asks_too_much_gets_a_page_and_the_next_one_is_served(
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
    assert _is_told_to_wait(answers[-1])
    assert "One moment" in answers[-1].text
    korean = await open_from("192.0.2.1", **{"Accept-Language": "ko"})
    assert "잠시만" in korean.text
    assert (await open_from("192.0.2.2")).status_code == 400
    events = await world.public.post(
        "/auth/google/risc", content=b"x", headers={"X-Forwarded-For": "192.0.2.1"}
    )
    assert _is_told_to_wait(events)
    assert events.content == b""
    for answer in (answers[-1], events):
        assert answer.headers["cache-control"] == "no-store"
