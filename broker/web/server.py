"""Runs the listeners: several uvicorn servers in one event loop, with bounded request heads.

uvicorn's fast parser takes heads of any length, and a signal handler per server would have them
fight over Ctrl-C; both are settled here.
"""

import asyncio
import contextlib
import json
import socket
from collections.abc import Iterator, Sequence
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from broker.settings import Listen
from broker.web.problems import PROBLEM_MEDIA_TYPE, invalid_request

HEAD_LIMIT = 32 * 1024
"""Bytes of request line and headers together; a 2 KiB token and a long user id fit many times."""

_DISCARD_LIMIT = 4 * 1024 * 1024
"""Bytes of a refused request that are still read, so that its sender gets to see the refusal."""

_LINGER_SECONDS = 2.0


def _head_too_long() -> bytes:
    problem = invalid_request(
        "headers", f"The request's line and headers exceed {HEAD_LIMIT} bytes.", status=431
    )
    body = json.dumps(problem.body()).encode()
    return (
        b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
        b"content-type: " + PROBLEM_MEDIA_TYPE.encode() + b"\r\n"
        b"content-length: " + str(len(body)).encode() + b"\r\n"
        b"cache-control: no-store\r\n"
        b"x-content-type-options: nosniff\r\n"
        b"connection: close\r\n\r\n" + body
    )


class BoundedHttpProtocol(HttpToolsProtocol):
    """uvicorn's parser, with a limit on the head and on what is read of a refused body."""

    _head_bytes = 0
    _discarded_bytes = 0
    _refused = False

    def data_received(self, data: bytes) -> None:
        if self._refused:
            self._discard(data)
            return
        if len(data) > HEAD_LIMIT and self._begins_with_long_head(data):
            self._refuse()
            return
        super().data_received(data)
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is None or cycle.scope is not self.scope:
            # A head has begun and is not complete yet.
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_LIMIT and not self.transport.is_closing():
                self._refuse()
        else:
            self._head_bytes = 0
            if cycle.response_complete and cycle.more_body:
                self._discard(data)

    def _begins_with_long_head(self, data: bytes) -> bool:
        cycle: RequestResponseCycle | None = self.cycle
        in_body = cycle is not None and cycle.scope is self.scope and cycle.more_body
        return not in_body and not 0 <= data.find(b"\r\n\r\n") <= HEAD_LIMIT

    def _refuse(self) -> None:
        self._refused = True
        self._unset_keepalive_if_required()
        self.transport.write(_head_too_long())
        # Closing at once would reset the connection under a sender that has not read the answer.
        self.loop.call_later(_LINGER_SECONDS, self.transport.close)

    def _discard(self, data: bytes) -> None:
        self._discarded_bytes += len(data)
        if self._discarded_bytes > _DISCARD_LIMIT:
            self.transport.close()


class _Server(uvicorn.Server):
    """A uvicorn server that leaves the signals to whoever runs it."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Listeners:
    """Several applications, each on its own address, started and stopped together."""

    def __init__(self, apps: Sequence[tuple[ASGIApp, socket.socket]]) -> None:
        self._servers = [(_Server(_config(app)), bound) for app, bound in apps]
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Returns when every listener accepts connections."""
        self._tasks = [
            asyncio.create_task(server.serve(sockets=[bound])) for server, bound in self._servers
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
        "http": BoundedHttpProtocol,
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
