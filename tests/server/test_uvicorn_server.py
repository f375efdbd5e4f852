"""The stop of a listener: a request that the system has queued for it is answered."""

import asyncio
import errno
import select
import socket
import sys

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from broker.server import uvicorn_server
from broker.server.uvicorn_server import Listeners, bind
from broker.settings import Listen

_REQUEST = b"GET / HTTP/1.1\r\nHost: broker\r\n\r\n"
_MANY = 40
"""More than are accepted in one event-loop iteration."""

_BUSY_CLIENT_SECONDS = 0.6
"""How long a client on a busy machine may take between connecting and sending."""


async def _answer(_request: Request) -> PlainTextResponse:
    return PlainTextResponse("served")


async def _listening() -> tuple[Listeners, tuple[str, int]]:
    bound = bind(Listen("127.0.0.1", 0))
    listeners = Listeners([(Starlette(routes=[Route("/", _answer)]), bound)])
    address: tuple[str, int] = bound.getsockname()
    await listeners.start()
    return listeners, address


async def _received(connection: socket.socket) -> bytes:
    connection.setblocking(False)
    return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(connection, 4096), 10)


async def test_connections_that_are_queued_at_the_stop_are_served(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stop_requested = asyncio.Event()

    async def until_stop(_server: uvicorn.Server) -> None:
        await stop_requested.wait()

    monkeypatch.setattr(uvicorn.Server, "main_loop", until_stop)
    listeners, address = await _listening()
    # Nothing is awaited until the stop, so the listener has accepted none of them.
    waiting = [socket.create_connection(address, timeout=10) for _ in range(_MANY)]
    for connection in waiting:
        connection.sendall(_REQUEST)
    stop_requested.set()
    stopping = asyncio.create_task(listeners.stop())
    answers = [await _received(connection) for connection in waiting]
    await stopping
    assert all(answer.startswith(b"HTTP/1.1 200") for answer in answers)
    for connection in waiting:
        connection.close()


async def test_a_first_request_that_arrives_during_the_stop_is_served() -> None:
    listeners, address = await _listening()
    connection = socket.create_connection(address, timeout=10)
    stopping = asyncio.create_task(listeners.stop())
    # The listening socket is closed once new connections are refused.
    while await _accepts(address):
        pass
    await asyncio.sleep(_BUSY_CLIENT_SECONDS)
    connection.sendall(_REQUEST)
    assert (await _received(connection)).startswith(b"HTTP/1.1 200")
    await stopping
    connection.close()


async def test_a_connection_without_a_request_delays_the_stop_for_a_bounded_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("broker.server.uvicorn_server.FIRST_REQUEST_CHECKS", 10)
    listeners, address = await _listening()
    with socket.create_connection(address, timeout=10) as silent:
        await asyncio.wait_for(listeners.stop(), 10)
        assert await _received(silent) == b""


async def test_an_idle_connection_that_has_sent_a_request_does_not_delay_the_stop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("broker.server.uvicorn_server.FIRST_REQUEST_CHECKS", 10**9)
    listeners, address = await _listening()
    with socket.create_connection(address, timeout=10) as idle:
        idle.sendall(_REQUEST)
        assert (await _received(idle)).startswith(b"HTTP/1.1 200")
        await asyncio.wait_for(listeners.stop(), 10)
        assert await _received(idle) == b""


@pytest.mark.skipif(sys.platform != "linux", reason="a filter of Linux")
def test_no_connection_is_established_that_would_be_reset() -> None:
    """A connection attempt between the last accept and the close is refused."""
    bound = bind(Listen("127.0.0.1", 0))
    with (
        socket.create_connection(bound.getsockname(), timeout=10) as early,
        socket.socket() as late,
    ):
        uvicorn_server._drop_new_connections(bound)
        late.setblocking(False)
        assert late.connect_ex(bound.getsockname()) == errno.EINPROGRESS
        assert not select.select([], [late], [], 0.2)[1]
        early.sendall(_REQUEST)
        taken, _ = bound.accept()
        with taken:
            assert taken.recv(4096) == _REQUEST
        bound.close()
        assert select.select([], [late], [], 10)[1]
        assert late.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED


async def _accepts(address: tuple[str, int]) -> bool:
    with socket.socket() as newcomer:
        newcomer.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(newcomer, address)
        except ConnectionRefusedError:
            return False
    return True
