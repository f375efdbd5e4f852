"""No complete request is reset: it is answered, or its connection ends cleanly.

In each test bytes arrive while the event loop is busy, and then all timers are due before the loop
reads them. Any pause of the process would lead to this order.
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

from broker.server import bounded_protocol, uvicorn_server
from broker.server.listener import Listener
from broker.telemetry.metrics import Metrics
from broker.web.request_ids import RequestIds
from tests.server.sockets import PATIENCE_SECONDS, Wire, get, post, serving
from tests.server.timers import TimedLoop

_MUCH = 16 * 1024 * 1024
"""Bytes; more than the system buffers."""


class _BusyServer:
    """A server whose event loop one request keeps busy while the test acts."""

    def __init__(self) -> None:
        self.loop = TimedLoop()
        self.servers: list[Any] = []
        self.port = 0
        self.released = asyncio.Event()
        """For requests at `/held`."""
        self._is_busy = threading.Event()
        self._may_continue = threading.Event()
        self._then: Callable[[], object] = self.loop.fire

    def fast_path(self, target: bytes, _headers: Mapping[bytes, bytes]) -> bytes | None:
        """Block the event loop at `/busy`: while sockets are read, and before timers run."""
        if target == b"/busy":
            self._is_busy.set()
            assert self._may_continue.wait(PATIENCE_SECONDS)
            self._then()
            return b"content-length: 0\r\n\r\n"
        return None

    @contextmanager
    def busy(self, then: Callable[[], object] | None = None) -> Iterator[None]:
        """Nothing is read within; `then` runs next, instead of the timers."""
        self._then = then or self.loop.fire
        with Wire(self.port) as wire:
            # After a first request, no timer runs for this connection itself.
            wire.say(get()).hear()
            wire.say(get("/busy"))
            assert self._is_busy.wait(PATIENCE_SECONDS)
            yield
            self._may_continue.set()
            assert wire.hear().status == 200

    def shut_down(self) -> None:
        """Do what uvicorn does with idle connections when the listeners stop."""
        for each in self.servers:
            for connection in list(each.server_state.connections):
                if connection.timeout_keep_alive_task is not None:
                    connection.shutdown()


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Iterator[_BusyServer]:
    broker = _BusyServer()
    plain = uvicorn_server._Server

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

    async def ignore(_request: Request) -> Response:
        return PlainTextResponse("not read", status_code=429)

    async def much(_request: Request) -> Response:
        return PlainTextResponse("x" * _MUCH)

    routes = [
        Route("/hello", hello),
        Route("/held", held),
        Route("/echo", echo, methods=["POST"]),
        Route("/ignore", ignore, methods=["POST"]),
        Route("/much", much),
    ]
    listener = Listener(
        "internal",
        Starlette(routes=routes),
        metrics=Metrics(),
        request_ids=RequestIds(),
        fast_path=broker.fast_path,
    )
    monkeypatch.setattr(uvicorn_server, "_Server", noted)
    with serving(listener, loop=broker.loop) as (broker.port,):
        yield broker


def test_a_request_that_arrives_as_its_idle_connection_times_out_is_answered(
    broker: _BusyServer,
) -> None:
    with Wire(broker.port) as wire:
        wire.say(get()).hear()
        with broker.busy():
            wire.say(get())
        assert wire.hear().status == 200


def test_a_first_request_that_arrives_as_its_connection_times_out_is_answered(
    broker: _BusyServer,
) -> None:
    with Wire(broker.port) as wire:
        with broker.busy():
            wire.say(post(b"x" * 30_000))
        assert len(wire.hear().body) == 30_000


def test_a_connection_that_times_out_ends_cleanly(broker: _BusyServer) -> None:
    with Wire(broker.port) as silent, Wire(broker.port) as idle:
        idle.say(get()).hear()
        with broker.busy():
            pass
        for wire in (silent, idle):
            assert wire.hear_the_end() == b""
            wire.say(get())
            assert not wire.was_reset()


@pytest.mark.parametrize("whole", [get(), post(b"x" * 30_000)], ids=["head", "body"])
def test_bytes_that_arrive_in_time_count_even_if_they_are_unread(
    broker: _BusyServer, whole: bytes
) -> None:
    with Wire(broker.port) as wire:
        wire.say(whole[:-10])
        with broker.busy():
            wire.say(whole[-10:])
        assert wire.hear().status == 200


def test_an_incomplete_head_behind_requests_in_flight_is_not_timed(broker: _BusyServer) -> None:
    """With two requests in flight, nothing more is read until the first is answered."""
    with Wire(broker.port) as wire:
        wire.say(get("/held") + get() + get()[:-10])
        with broker.busy():
            wire.say(get()[-10:])
        broker.loop.call_soon_threadsafe(broker.released.set)
        assert [wire.hear().status for _ in range(3)] == [200, 200, 200]


def test_a_sender_that_completes_a_refused_request_is_not_reset(broker: _BusyServer) -> None:
    body = b"x" * 200_000
    whole = post(body, "Connection: close", path="/ignore")
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


def test_bytes_behind_a_last_request_do_not_cost_its_response(broker: _BusyServer) -> None:
    with Wire(broker.port) as wire:
        wire.say(get("/held", "Connection: close"))
        with broker.busy(broker.released.set):
            wire.say(b"\r\n")
        assert wire.hear().body == b"held"
        assert wire.hear_the_end() == b""
        assert not wire.was_reset()


def test_a_request_that_arrives_as_the_broker_stops_ends_cleanly(broker: _BusyServer) -> None:
    with Wire(broker.port) as wire:
        wire.say(get()).hear()
        with broker.busy(broker.shut_down):
            wire.say(post(b"x" * 30_000))
        assert wire.hear_the_end() == b""
        assert not wire.was_reset()


def test_the_last_response_is_not_cut_off_while_it_is_read(broker: _BusyServer) -> None:
    with Wire(broker.port) as wire:
        wire.say(get("/much", "Connection: close"))
        count = wire.hear_some()
        with broker.busy():
            count += sum(wire.hear_some() for _ in range(3))
        while more := wire.hear_some():
            count += more
    assert count > _MUCH


def test_a_connection_over_the_limit_ends_cleanly(
    broker: _BusyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded_protocol, "max_connections", lambda: 16)
    wires = [Wire(broker.port) for _ in range(12)]
    for wire in wires:
        assert wire.say(get()).hear().status == 200
    too_many = [Wire(broker.port).say(post(b"x" * 30_000)) for _ in range(2)]
    for wire in too_many:
        assert wire.hear_the_end() == b""
        assert not wire.was_reset()
    # Rejected connections leave the other clients their share.
    others = [Wire(broker.port, source="127.0.0.2") for _ in range(4)]
    for wire in others:
        assert wire.say(get()).hear().status == 200
    for wire in (*wires, *too_many, *others):
        wire.close()
