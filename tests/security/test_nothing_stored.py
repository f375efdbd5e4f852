"""Check 28 for each way in which an answer is made, the shortcuts before any route included."""

import asyncio
from collections.abc import AsyncIterator

import httpx2
import pytest

from broker.callers.keys import new_key
from broker.server.graceful_stop import Listeners, bind
from broker.settings import Listen
from devstack.postgres import EmbeddedPostgres
from tests.exchange.harness import exchange
from tests.security.test_security_events import claims, post, signed
from tests.server.sockets import Answer, Wire
from tests.support.outages import database_away
from tests.support.visits import ask_for_visit
from tests.support.workloads import Trusting
from tests.support.world import World, stanza

PATH = "/v1/users/user-1/token"


def _not_stored(answer: httpx2.Response, status: int) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers.get_list("cache-control") == ["no-store"], answer.url


async def test_check_28_no_token_link_or_grant_may_be_stored(trusting: Trusting) -> None:
    world = trusting.world
    trip = await world.connect_unconfirmed("user-2")
    _not_stored(await world.confirm(trip), 200)
    _not_stored(await world.confirm(trip), 409)
    _not_stored(await world.token(), 200)
    batch = {"requests": [{"user_id": "user-1"}, {"user_id": "nobody"}]}
    tokens = await world.internal.post("/v1/tokens", json=batch, headers=world.authorization)
    _not_stored(tokens, 200)
    _not_stored(await exchange(trusting), 200)
    _not_stored(await exchange(trusting, grant_type=None), 400)
    _not_stored(await exchange(trusting, headers={}), 401)
    _not_stored(await world.create_link("user-1"), 201)
    _not_stored(await ask_for_visit(world), 201)
    grants = await world.internal.get("/v1/users/user-1/grants", headers=world.authorization)
    _not_stored(grants, 200)
    _not_stored(await world.revoke(), 204)


async def test_check_28_no_answer_to_google_may_be_stored(world: World) -> None:
    await world.connect()
    _not_stored(await post(world, signed(world, claims(world))), 202)
    _not_stored(await post(world, "nothing"), 400)
    _not_stored(await post(world, "x" * 100_000), 413)


async def test_check_28_no_answer_in_an_outage_may_be_stored(
    world: World, postgres: EmbeddedPostgres
) -> None:
    event = signed(world, claims(world))
    link = (await world.create_link("user-1")).json()["url"]
    async with database_away(world, postgres):
        _not_stored(await post(world, event), 503)
        _not_stored(await world.token(), 503)
        _not_stored(await world.public.get(link), 503)
        _not_stored(await world.ops.get("/readyz"), 503)
    for path in ("/livez", "/metrics"):
        _not_stored(await world.ops.get(path), 200)


@pytest.fixture
async def port(world: World) -> AsyncIterator[int]:
    """Where the callers' listener is served as `broker serve` does."""
    bound = bind(Listen("127.0.0.1", 0))
    listeners = Listeners([(world.broker.internal, bound)])
    await listeners.start()
    yield bound.getsockname()[1]
    await listeners.stop()


async def _asked(port: int, *said: bytes) -> list[Answer]:
    def ask() -> list[Answer]:
        with Wire(port) as wire:
            return [wire.say(each).hear() for each in said]

    return await asyncio.to_thread(ask)


async def test_check_28_no_answer_given_at_once_may_be_stored(world: World, port: int) -> None:
    """What is warm, whoever asks too often, and what is refused before it is a request."""
    await world.connect()
    key = new_key()
    limited = stanza(key, rate_limit={"requests_per_second": 0.01, "burst": 2})
    await world.rewrite_callers({"calendar-sync": stanza(world.key), "limited": limited})
    head = f"GET {PATH} HTTP/1.1\r\nHost: broker.test\r\nAuthorization: Bearer {key}\r\n\r\n"
    answers = await _asked(port, *[head.encode()] * 4)
    assert [answer.status for answer in answers] == [200, 200, 429, 429]
    answers += await _asked(port, b"nothing that anybody would call HTTP\r\n\r\n")
    answers += await _asked(port, f"GET /{'x' * 70_000} HTTP/1.1\r\n\r\n".encode())
    assert [answer.status for answer in answers[4:]] == [400, 431]
    for answer in answers:
        found = [value for name, value in answer.headers if name == "cache-control"]
        assert found == ["no-store"], answer.status
