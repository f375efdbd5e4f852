"""A webhook receiver on a real socket: records requests, and answers as a test wants."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.support.waiting import eventually


@dataclass(frozen=True)
class Received:
    """One request."""

    headers: Mapping[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def event(self) -> dict[str, Any]:
        event: dict[str, Any] = json.loads(self.body)
        return event

    @property
    def type(self) -> str:
        return str(self.event["type"])


class Receiver:
    """Answers 204 unless a test sets other answers."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.answers: list[bytes] = []
        """Used up in order; then `answer`."""
        self.answer = head(204)
        self.hold: asyncio.Event | None = None
        """If set, answers wait for this event."""
        self._server: asyncio.Server | None = None
        self._port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/hooks?from=broker"

    @property
    def types(self) -> list[str]:
        return [each.type for each in self.received]

    async def start(self) -> None:
        """Listen, on the previous port after a stop."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Refuse connections."""
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    async def wait_for(self, count: int, *, seconds: float = 10) -> list[Received]:
        """Return all requests once there are `count`."""

        async def is_so() -> bool:
            return len(self.received) >= count

        await eventually(is_so, seconds=seconds)
        return self.received

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._answer_one(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()

    async def _answer_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = (await reader.readuntil(b"\r\n\r\n")).decode()
        line, *lines = request.strip().split("\r\n")
        assert line == "POST /hooks?from=broker HTTP/1.1"
        headers = {name.lower(): value for name, value in (each.split(": ", 1) for each in lines)}
        body = await reader.readexactly(int(headers["content-length"]))
        self.received.append(Received(headers, body))
        answer = self.answers.pop(0) if self.answers else self.answer
        if self.hold is not None:
            await self.hold.wait()
        writer.write(answer)
        await writer.drain()


def head(status: int, **headers: str) -> bytes:
    """An answer without a body."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"HTTP/1.1 {status} Said", *(f"{n}: {v}" for n, v in names.items())]
    if status != 204:
        lines.append("content-length: 0")
    return "\r\n".join([*lines, "connection: close", "", ""]).encode()
