"""No request that was sent whole is reset: it is answered, or its connection ends cleanly.

Each test has the event loop busy while bytes arrive, and then all timers due before it reads them:
the order in which it would happen after any pause of the process, here without one.
"""

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from broker.server import bounded_protocol as protocol
from broker.server import graceful_stop as server
from broker.server.listener import Listener
from broker.telemetry.metrics import Metrics
from broker.web.request_ids import RequestIds
from tests.server.sockets import PATIENCE_SECONDS, Wire, get, post, serving
from tests.server.timers import TimedLoop

_MUCH = 16 * 1024 * 1024
"""Bytes; more than the system takes off our hands."""


class _Busy:
    """A broker whose event loop is kept busy by one request while the test does something."""

    def __init__(self) -> None:
        self.loop = TimedLoop()
        self.servers: list[Any] = []
        self.port = 0
        self.released = asyncio.Event()
        """For requests at `/held`."""
        self._began = threading.Event()
        self._may_end = threading.Event()
        self._then: Callable[[], object] = self.loop.fire

    def answer_at_once(self, target: bytes, _headers: Mapping[bytes, bytes]) -> bytes | None:
        """Keeps everybody waiting, if so asked: while sockets are read, and before timers run."""
        if target == b"/busy":
            self._began.set()
            assert self._may_end.wait(PATIENCE_SECONDS)
            self._then()
            return b"content-length: 0\r\n\r\n"
        return None

    @contextmanager
    def busy(self, then: Callable[[], object] | None = None) -> Iterator[None]:
        """Nothing is read within; `then` happens next, in place of the timers."""
        self._then = then or self.loop.fire
        with Wire(self.port) as wire:
            # Behind a first request, no timer is running for this one itself.
            wire.say(get()).hear()
            wire.say(get("/busy"))
            assert self._began.wait(PATIENCE_SECONDS)
            yield
            self._may_end.set()
            assert wire.hear().status == 200

    def shut_down(self) -> None:
        """What uvicorn does with idle connections when the listeners stop."""
        for each in self.servers:
            for connection in list(each.server_state.connections):
                if connection.timeout_keep_alive_task is not None:
                    connection.shutdown()


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Busy]:
    broker = _Busy()
    plain = server._Server

    def noted(config: Any) -> Any:
        broker.servers.append(plain(config))
        return broker.servers[-1]

    async def hello(_request: Request) -> Response:
        return PlainTextResponse("hello")

    async def held(_request: Request) -> Response:
        await broker.released.wait()
        return PlainTextResponse("held")

    async def echo(request: Request) -> Response:
        return PlainTextResponse(await request.body())

    async def deaf(_request: Request) -> Response:
        return PlainTextResponse("not read", status_code=429)

    async def much(_request: Request) -> Response:
        return PlainTextResponse("x" * _MUCH)

    routes = [
        Route("/hello", hello),
        Route("/held", held),
        Route("/echo", echo, methods=["POST"]),
        Route("/deaf", deaf, methods=["POST"]),
        Route("/much", much),
    ]
    listener = Listener(
        "internal",
        Starlette(routes=routes),
        metrics=Metrics(),
        request_ids=RequestIds(),
        answer_at_once=broker.answer_at_once,
    )
    monkeypatch.setattr(server, "_Server", noted)
    with serving(listener, loop=broker.loop) as (broker.port,):
        yield broker


def test_a_request_that_comes_as_an_idle_connection_is_given_up_is_answered(broker: _Busy) -> None:
    with Wire(broker.port) as wire:
        wire.say(get()).hear()
        with broker.busy():
            wire.say(get())
        assert wire.hear().status == 200


def test_a_first_request_that_comes_as_its_connection_is_given_up_is_answered(
    broker: _Busy,
) -> None:
    with Wire(broker.port) as wire:
        with broker.busy():
            wire.say(post(b"x" * 30_000))
        assert len(wire.hear().body) == 30_000


def test_a_connection_that_is_given_up_ends_cleanly(broker: _Busy) -> None:
    with Wire(broker.port) as silent, Wire(broker.port) as idle:
        idle.say(get()).hear()
        with broker.busy():
            pass
        for wire in (silent, idle):
            assert wire.hear_the_end() == b""
            wire.say(get())
            assert not wire.was_reset()


@pytest.mark.parametrize("whole", [get(), post(b"x" * 30_000)], ids=["head", "body"])
def test_a_rest_that_is_there_in_time_counts_though_nobody_read_it_yet(
    broker: _Busy, whole: bytes
) -> None:
    with Wire(broker.port) as wire:
        wire.say(whole[:-10])
        with broker.busy():
            wire.say(whole[-10:])
        assert wire.hear().status == 200


def test_half_a_head_behind_a_request_under_way_is_not_ours_to_time(broker: _Busy) -> None:
    """Two requests under way, and nothing more is read until the first has its answer."""
    with Wire(broker.port) as wire:
        wire.say(get("/held") + get() + get()[:-10])
        with broker.busy():
            wire.say(get()[-10:])
        broker.loop.call_soon_threadsafe(broker.released.set)
        assert [wire.hear().status for _ in range(3)] == [200, 200, 200]


def test_who_sends_all_of_what_was_refused_midway_is_not_reset(broker: _Busy) -> None:
    body = b"x" * 200_000
    whole = post(body, "Connection: close", path="/deaf")
    with Wire(broker.port) as wire:
        wire.say(whole[:-100_000])
        assert wire.hear().status == 429
        with broker.busy():
            wire.say(whole[-100_000:])
        assert wire.hear_the_end() == b""
        broker.loop.call_soon_threadsafe(broker.loop.fire)
        with Wire(broker.port) as other:
            other.say(get()).hear()
        assert not wire.was_reset()


def test_what_comes_behind_a_last_request_does_not_cost_its_answer(broker: _Busy) -> None:
    with Wire(broker.port) as wire:
        wire.say(get("/held", "Connection: close"))
        with broker.busy(broker.released.set):
            wire.say(b"\r\n")
        assert wire.hear().body == b"held"
        assert wire.hear_the_end() == b""
        assert not wire.was_reset()


def test_a_request_that_comes_as_the_broker_stops_ends_cleanly(broker: _Busy) -> None:
    with Wire(broker.port) as wire:
        wire.say(get()).hear()
        with broker.busy(broker.shut_down):
            wire.say(post(b"x" * 30_000))
        assert wire.hear_the_end() == b""
        assert not wire.was_reset()


def test_the_last_answer_is_not_cut_off_while_it_is_being_read(broker: _Busy) -> None:
    with Wire(broker.port) as wire:
        wire.say(get("/much", "Connection: close"))
        count = wire.hear_some()
        with broker.busy():
            count += sum(wire.hear_some() for _ in range(3))
        while more := wire.hear_some():
            count += more
    assert count > _MUCH


def test_one_connection_too_many_ends_cleanly(
    broker: _Busy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "most_connections", lambda: 16)
    wires = [Wire(broker.port) for _ in range(12)]
    for wire in wires:
        assert wire.say(get()).hear().status == 200
    too_many = [Wire(broker.port).say(post(b"x" * 30_000)) for _ in range(2)]
    for wire in too_many:
        assert wire.hear_the_end() == b""
        assert not wire.was_reset()
    # Those who are turned away take nothing from others.
    others = [Wire(broker.port, source="127.0.0.2") for _ in range(4)]
    for wire in others:
        assert wire.say(get()).hear().status == 200
    for wire in (*wires, *too_many, *others):
        wire.close()
