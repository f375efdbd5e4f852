"""Runs the listeners: several uvicorn servers in one event loop that leave the signals alone."""

import asyncio
import contextlib
import ctypes
import socket
import struct
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from broker.server.bounded_protocol import BoundedHttpProtocol
from broker.server.fast_path import PromptHttpProtocol
from broker.server.listener import Listener
from broker.settings import Listen

ACCEPTED_A_ROUND = 16
"""Connections of one listener that are taken in one round of the event loop.

libuv takes one for each descriptor (libuv #3696). Where rounds are long, for whatever reason, those
who come anew would wait for many: a crowd of three hundred kept them out for seconds.
"""


LAST_CALL_ROUNDS = 200
"""How often the end looks whether a connection made before has sent its first request, 10 ms apart.

uvicorn closes at once what has not sent any: under load those are requests that wait to be read.
Rounds and not seconds are counted, so that a process short of processor time reads in between.
"""

_HANDSHAKE_SECONDS = 0.05
"""For the rest of a handshake that has begun; more than a round trip within a continent."""

_SO_ATTACH_FILTER = 26
"""Of socket(7)."""

_NO_SYN = (
    (0x30, 0, 0, 13),  # Load the flags, the 14th byte of the TCP header;
    (0x45, 0, 1, 0x02),  # where SYN is set,
    (0x06, 0, 0, 0),  # keep nothing of the packet,
    (0x06, 0, 0, 0xFFFF),  # else all of it.
)
"""A classic BPF program: code, jump if true, jump if false, operand (Linux's filter.rst)."""


class _Server(uvicorn.Server):
    """A uvicorn server that leaves the signals alone, and fails no request at its end."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take the connections that the system holds for us, take no more, and serve those.

        It lasts no longer than they need: at once where each has sent a request before.
        """
        if sockets:
            _let_nobody_begin(sockets[0])
        # Handshakes that have begun get to their end.
        await asyncio.sleep(_HANDSHAKE_SECONDS)
        queued = _queued(sockets[0]) if sockets else []
        for server in self.servers:
            server.close()
        for listening in sockets or []:
            listening.close()
        loop = asyncio.get_running_loop()
        for connection in queued:
            await loop.connect_accepted_socket(self._protocol, connection)
        await self._last_call()
        await super().shutdown()

    async def _last_call(self) -> None:
        for _ in range(LAST_CALL_ROUNDS):
            # Sleeping first lets the loop start the connections that it has just accepted.
            await asyncio.sleep(0.01)
            if not any(
                isinstance(connection, BoundedHttpProtocol) and connection.awaits_first_request
                for connection in self.server_state.connections
            ):
                return

    def _protocol(self) -> asyncio.Protocol:
        make: Any = self.config.http_protocol_class
        protocol: asyncio.Protocol = make(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return protocol


def _let_nobody_begin(listening: socket.socket) -> None:
    """Have the system drop the first packet (SYN) of each new connection, as if it had been lost.

    Whoever is let in between the last `accept` and `close` is reset, request and all. This way
    none is; the client sends its SYN again, after a second, and is refused. Where there is no such
    filter (systems other than Linux, gVisor), that gap of some microseconds remains.
    """
    if sys.platform != "linux":
        return
    filters = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in _NO_SYN))
    program = struct.pack("HP", len(_NO_SYN), ctypes.addressof(filters))
    with contextlib.suppress(OSError):
        listening.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


def _queued(listening: socket.socket) -> list[socket.socket]:
    """Connections that are made, and that closing the listening socket would break off."""
    connections = []
    with contextlib.suppress(OSError):  # BlockingIOError once there is none left.
        while True:
            connections.append(listening.accept()[0])
    return connections


class Listeners:
    """Several applications, each on its own address, started and stopped together."""

    def __init__(self, apps: Sequence[tuple[ASGIApp, socket.socket]]) -> None:
        self._servers = [(_Server(_config(app)), bound) for app, bound in apps]
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Returns when every listener accepts connections."""
        self._tasks = [
            asyncio.create_task(server.serve(sockets=_several(bound)))
            for server, bound in self._servers
        ]
        while not all(server.started for server, _ in self._servers):
            for task in self._tasks:
                if task.done():
                    task.result()
            await asyncio.sleep(0.005)

    async def stop(self) -> None:
        """Let requests under way end, for a bounded time, and close."""
        for server, _ in self._servers:
            server.should_exit = True
        await asyncio.gather(*self._tasks)


def _config(app: ASGIApp) -> uvicorn.Config:
    settings: dict[str, Any] = {
        "http": _protocol(app),
        "ws": "none",
        "lifespan": "off",
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "proxy_headers": False,
        "timeout_keep_alive": 75,
        "timeout_graceful_shutdown": 10,
    }
    return uvicorn.Config(app, **settings)


def _several(bound: socket.socket) -> list[socket.socket]:
    """The same listening socket, by as many descriptors as connections are taken at a time."""
    return [bound, *(bound.dup() for _ in range(ACCEPTED_A_ROUND - 1))]


def _protocol(app: ASGIApp) -> Any:
    """What makes the protocol of a connection."""
    answer_at_once = app.answer_at_once if isinstance(app, Listener) else None
    if answer_at_once is None:
        return BoundedHttpProtocol
    return partial(PromptHttpProtocol, answer_at_once=answer_at_once)


def bind(listen: Listen) -> socket.socket:
    """A listening address, taken now. Raises `OSError` when it can't be."""
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    # With the protocol named, asyncio sets TCP_NODELAY on what it accepts.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((listen.host, listen.port))
        bound.listen(2048)
    except OSError:
        bound.close()
        raise
    return bound
