"""The end of a listener: a request that the system has taken for it is answered."""

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

from broker.server import graceful_stop as server
from broker.server.graceful_stop import Listeners, bind
from broker.settings import Listen

_REQUEST = b"GET / HTTP/1.1\r\nHost: broker\r\n\r\n"
_MANY = 40
"""More than are taken in one round of the event loop."""

_SHORT_OF_PROCESSOR_TIME_SECONDS = 0.6
"""How long a client on a busy machine may take between connecting and sending."""


async def _answer(_request: Request) -> PlainTextResponse:
    return PlainTextResponse("served")


async def _listening() -> tuple[Listeners, tuple[str, int]]:
    bound = bind(Listen("127.0.0.1", 0))
    listeners = Listeners([(Starlette(routes=[Route("/", _answer)]), bound)])
    address: tuple[str, int] = bound.getsockname()
    await listeners.start()
    return listeners, address


async def _said(connection: socket.socket) -> bytes:
    connection.setblocking(False)
    return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(connection, 4096), 10)


async def test_who_waits_to_be_accepted_at_the_end_is_served(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ending = asyncio.Event()

    async def until_told(_server: uvicorn.Server) -> None:
        await ending.wait()

    monkeypatch.setattr(uvicorn.Server, "main_loop", until_told)
    listeners, address = await _listening()
    # Nothing is awaited from here on, so that the listener has accepted none of them at its end.
    waiting = [socket.create_connection(address, timeout=10) for _ in range(_MANY)]
    for connection in waiting:
        connection.sendall(_REQUEST)
    ending.set()
    stopping = asyncio.create_task(listeners.stop())
    answers = [await _said(connection) for connection in waiting]
    await stopping
    assert all(answer.startswith(b"HTTP/1.1 200") for answer in answers)
    for connection in waiting:
        connection.close()


async def test_a_first_request_that_comes_during_the_end_is_served() -> None:
    listeners, address = await _listening()
    connection = socket.create_connection(address, timeout=10)
    stopping = asyncio.create_task(listeners.stop())
    # The listening socket has gone once nobody else gets in.
    while await _lets_in(address):
        pass
    await asyncio.sleep(_SHORT_OF_PROCESSOR_TIME_SECONDS)
    connection.sendall(_REQUEST)
    assert (await _said(connection)).startswith(b"HTTP/1.1 200")
    await stopping
    connection.close()


async def test_who_never_asks_holds_the_end_up_for_a_bounded_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("broker.server.graceful_stop.LAST_CALL_ROUNDS", 10)
    listeners, address = await _listening()
    with socket.create_connection(address, timeout=10) as silent:
        await asyncio.wait_for(listeners.stop(), 10)
        assert await _said(silent) == b""


async def test_who_has_asked_before_does_not_hold_the_end_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("broker.server.graceful_stop.LAST_CALL_ROUNDS", 10**9)
    listeners, address = await _listening()
    with socket.create_connection(address, timeout=10) as idle:
        idle.sendall(_REQUEST)
        assert (await _said(idle)).startswith(b"HTTP/1.1 200")
        await asyncio.wait_for(listeners.stop(), 10)
        assert await _said(idle) == b""


@pytest.mark.skipif(sys.platform != "linux", reason="a filter of Linux's")
def test_nobody_is_let_in_whose_connection_would_be_reset() -> None:
    """From the last look at who waits until the address is closed: who comes then is refused."""
    bound = bind(Listen("127.0.0.1", 0))
    with (
        socket.create_connection(bound.getsockname(), timeout=10) as early,
        socket.socket() as late,
    ):
        server._let_nobody_begin(bound)
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


async def _lets_in(address: tuple[str, int]) -> bool:
    with socket.socket() as newcomer:
        newcomer.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(newcomer, address)
        except ConnectionRefusedError:
            return False
    return True
