"""Real listeners in a thread, and a client that sends exactly the bytes that a test gives it."""

import asyncio
import json
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import uvloop
from starlette.types import ASGIApp

from broker.server.uvicorn_server import Listeners, bind
from broker.settings import Listen

PATIENCE_SECONDS = 60.0


@contextmanager
def serving(*apps: ASGIApp, loop: uvloop.Loop | None = None) -> Iterator[list[int]]:
    """Serve the applications in a thread, like `broker serve`, and yield their ports."""
    sockets = [bind(Listen("127.0.0.1", 0)) for _ in apps]
    loop = loop or uvloop.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    listeners = Listeners(list(zip(apps, sockets, strict=True)))
    ports = [bound.getsockname()[1] for bound in sockets]
    asyncio.run_coroutine_threadsafe(listeners.start(), loop).result(PATIENCE_SECONDS)
    try:
        yield ports
    finally:
        asyncio.run_coroutine_threadsafe(listeners.stop(), loop).result(PATIENCE_SECONDS)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(PATIENCE_SECONDS)
        loop.close()


@dataclass(frozen=True)
class Answer:
    """One HTTP response."""

    status: int
    headers: Sequence[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        return dict(self.headers).get(name)

    def json(self) -> Any:
        return json.loads(self.body)


class Wire:
    """One connection; a test reads from it explicitly."""

    def __init__(self, port: int, *, source: str = "127.0.0.1") -> None:
        self._socket = socket.create_connection(
            ("127.0.0.1", port), PATIENCE_SECONDS, source_address=(source, 0)
        )
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._seen = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def say(self, *pieces: bytes) -> Self:
        """Send all pieces without reading. Raises `OSError` if the server has closed."""
        for piece in pieces:
            self._socket.sendall(piece)
        return self

    def hear(self) -> Answer:
        """Read the next response."""
        while b"\r\n\r\n" not in self._seen:
            self._receive()
        head, _, self._seen = self._seen.partition(b"\r\n\r\n")
        status, *lines = head.decode("latin-1").split("\r\n")
        headers = [(line.partition(": ")[0].lower(), line.partition(": ")[2]) for line in lines]
        length = int(dict(headers).get("content-length", "0"))
        while len(self._seen) < length:
            self._receive()
        body, self._seen = self._seen[:length], self._seen[length:]
        return Answer(int(status.split(" ")[1]), headers, body)

    def hear_the_end(self) -> bytes:
        """Read until the server closes the connection cleanly."""
        while chunk := self._socket.recv(65536):
            self._seen += chunk
        return self._seen

    def was_reset(self) -> bool:
        """True if the server has reset the connection by now."""
        return self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0

    def hear_some(self) -> int:
        """Read and discard some bytes; return how many, 0 at the end."""
        return len(self._socket.recv(1024 * 1024))

    def _receive(self) -> None:
        chunk = self._socket.recv(65536)
        if not chunk:
            raise ConnectionError(f"the server closed the connection; unread: {self._seen!r}")
        self._seen += chunk


def get(path: str = "/hello", *headers: str) -> bytes:
    """A GET request."""
    lines = (f"GET {path} HTTP/1.1", "Host: broker.test", *headers, "", "")
    return "\r\n".join(lines).encode()


def post(body: bytes, *headers: str, path: str = "/echo") -> bytes:
    """A POST request with a JSON body of known length."""
    lines = (
        f"POST {path} HTTP/1.1",
        "Host: broker.test",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        *headers,
        "",
        "",
    )
    return "\r\n".join(lines).encode() + body
