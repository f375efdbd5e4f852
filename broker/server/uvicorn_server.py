"""Runs the listeners as uvicorn servers in one event loop, and stops them gracefully.

A stop fails no request. The servers install no signal handlers.
"""

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
from broker.server.fast_path import FastPathProtocol
from broker.server.listener import Listener
from broker.settings import Listen

ACCEPTED_PER_ITERATION = 16
"""Connections of one listener accepted in one event-loop iteration.

libuv accepts one per descriptor (libuv #3696). With long iterations, new connections would wait for
many of them: three hundred busy clients kept new ones out for seconds.
"""


FIRST_REQUEST_CHECKS = 200
"""How often the stop checks, 10 ms apart, for connections that have not sent their first request.

uvicorn closes those immediately; under load they hold requests that wait to be read. Checks are
counted instead of seconds, so that a process short of CPU time reads in between.
"""

_HANDSHAKE_SECONDS = 0.05
"""For the rest of a TCP handshake that has begun; more than a round trip within a continent."""

_SO_ATTACH_FILTER = 26
"""From socket(7)."""

_NO_SYN = (
    (0x30, 0, 0, 13),  # Load the flags, the 14th byte of the TCP header.
    (0x45, 0, 1, 0x02),  # If SYN is set,
    (0x06, 0, 0, 0),  # drop the packet,
    (0x06, 0, 0, 0xFFFF),  # else keep it.
)
"""A classic BPF program: code, jump if true, jump if false, operand (Linux's filter.rst)."""


class _Server(uvicorn.Server):
    """A uvicorn server that installs no signal handlers and fails no request when it stops."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept the connections that the system has queued, refuse new ones, and serve the rest.

        Returns immediately if every connection has sent a request before.
        """
        if sockets:
            _drop_new_connections(sockets[0])
        # Let handshakes that have begun finish.
        await asyncio.sleep(_HANDSHAKE_SECONDS)
        queued = _queued(sockets[0]) if sockets else []
        for server in self.servers:
            server.close()
        for listening in sockets or []:
            listening.close()
        loop = asyncio.get_running_loop()
        for connection in queued:
            await loop.connect_accepted_socket(self._protocol, connection)
        await self._await_first_requests()
        await super().shutdown()

    async def _await_first_requests(self) -> None:
        for _ in range(FIRST_REQUEST_CHECKS):
            # The sleep comes first, so that the loop starts the connections that it just accepted.
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


def _drop_new_connections(listening: socket.socket) -> None:
    """Have the system drop the first packet (SYN) of each new connection, as if it had been lost.

    A connection that is established between the last `accept` and `close` would be reset. With the
    filter its client sends the SYN again after a second, and is refused. Without such a filter
    (systems other than Linux, gVisor) a gap of some microseconds remains.
    """
    if sys.platform != "linux":
        return
    filters = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in _NO_SYN))
    program = struct.pack("HP", len(_NO_SYN), ctypes.addressof(filters))
    with contextlib.suppress(OSError):
        listening.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


def _queued(listening: socket.socket) -> list[socket.socket]:
    """Accept the established connections that closing the listening socket would reset."""
    connections = []
    with contextlib.suppress(OSError):  # BlockingIOError once the queue is empty.
        while True:
            connections.append(listening.accept()[0])
    return connections


class Listeners:
    """Several applications, each on its own address, that start and stop together."""

    def __init__(self, apps: Sequence[tuple[ASGIApp, socket.socket]]) -> None:
        self._servers = [(_Server(_config(app)), bound) for app, bound in apps]
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Return when every listener accepts connections."""
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
        """Let requests in flight end, for a bounded time, and close."""
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
    """Duplicate the listening socket: the loop accepts one connection per descriptor."""
    return [bound, *(bound.dup() for _ in range(ACCEPTED_PER_ITERATION - 1))]


def _protocol(app: ASGIApp) -> Any:
    """Return the factory of a connection's protocol."""
    fast_path = app.fast_path if isinstance(app, Listener) else None
    if fast_path is None:
        return BoundedHttpProtocol
    return partial(FastPathProtocol, fast_path=fast_path)


def bind(listen: Listen) -> socket.socket:
    """Listen on an address. Raises `OSError` if it is taken or not local."""
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    # If the protocol is named, asyncio sets TCP_NODELAY on accepted connections.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((listen.host, listen.port))
        bound.listen(2048)
    except OSError:
        bound.close()
        raise
    return bound
