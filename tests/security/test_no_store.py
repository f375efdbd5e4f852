"""Check 28 for each way to make an answer, including the fast path before any route."""

import asyncio
from collections.abc import AsyncIterator

import httpx2
import pytest

from broker.callers.keys import new_key
from broker.server.uvicorn_server import Listeners, bind
from broker.settings import Listen
from devstack.postgres import EmbeddedPostgres
from tests.exchange.harness import exchange
from tests.security.test_security_events import claims, post, signed
from tests.server.sockets import Answer, Wire
from tests.support.connections_page import request_connections_link
from tests.support.outages import database_unavailable
from tests.support.workloads import IssuerWorld
from tests.support.world import World, stanza

PATH = "/v1/users/user-1/token"


def _assert_no_store(answer: httpx2.Response, status: int) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers.get_list("cache-control") == ["no-store"], answer.url


async def test_check_28_tokens_links_and_grants_are_no_store(issuer_world: IssuerWorld) -> None:
    world = issuer_world.world
    consent = await world.connect_pending("user-2")
    _assert_no_store(await world.confirm(consent), 200)
    _assert_no_store(await world.confirm(consent), 409)
    _assert_no_store(await world.token(), 200)
    batch = {"requests": [{"user_id": "user-1"}, {"user_id": "unknown-user"}]}
    tokens = await world.internal.post("/v1/tokens", json=batch, headers=world.authorization)
    _assert_no_store(tokens, 200)
    _assert_no_store(await exchange(issuer_world), 200)
    _assert_no_store(await exchange(issuer_world, grant_type=None), 400)
    _assert_no_store(await exchange(issuer_world, headers={}), 401)
    _assert_no_store(await world.create_link("user-1"), 201)
    _assert_no_store(await request_connections_link(world), 201)
    grants = await world.internal.get("/v1/users/user-1/grants", headers=world.authorization)
    _assert_no_store(grants, 200)
    _assert_no_store(await world.revoke(), 204)


async def test_check_28_answers_to_google_are_no_store(world: World) -> None:
    await world.connect()
    _assert_no_store(await post(world, signed(world, claims(world))), 202)
    _assert_no_store(await post(world, "nothing"), 400)
    _assert_no_store(await post(world, "x" * 100_000), 413)


async def test_check_28_answers_in_an_outage_are_no_store(
    world: World, postgres: EmbeddedPostgres
) -> None:
    event = signed(world, claims(world))
    link = (await world.create_link("user-1")).json()["url"]
    async with database_unavailable(world, postgres):
        _assert_no_store(await post(world, event), 503)
        _assert_no_store(await world.token(), 503)
        _assert_no_store(await world.public.get(link), 503)
        _assert_no_store(await world.ops.get("/readyz"), 503)
    for path in ("/livez", "/metrics"):
        _assert_no_store(await world.ops.get(path), 200)


@pytest.fixture
async def port(world: World) -> AsyncIterator[int]:
    """The port of the internal listener, served as by `broker serve`."""
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


async def test_check_28_answers_of_the_fast_path_are_no_store(world: World, port: int) -> None:
    """Cached tokens, rate-limited requests, and requests that the protocol refuses."""
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
