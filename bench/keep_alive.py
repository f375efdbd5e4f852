"""A caller that sends one request at a time and inspects each response."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class TimedAnswer:
    """One response."""

    status: int
    body: bytes
    seconds: float
    at: float
    """When it was complete, by `time.perf_counter`."""


class KeepAliveConnection:
    """A keep-alive connection with one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, port: int) -> Self:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()

    async def ask(self, request: bytes) -> TimedAnswer:
        """Send a request and read the complete response."""
        began = time.perf_counter()
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        _, found, rest = head.lower().partition(b"\r\ncontent-length: ")
        length = int(rest.partition(b"\r\n")[0]) if found else 0
        body = await self._reader.readexactly(length)
        now = time.perf_counter()
        return TimedAnswer(int(head.split(b" ", 2)[1]), body, now - began, now)


async def ask_each(port: int, requests: Sequence[bytes]) -> list[TimedAnswer]:
    """Send the requests one after another on one connection."""
    async with await KeepAliveConnection.open(port) as line:
        return [await line.ask(request) for request in requests]


async def open_connections(
    ports: Sequence[int], stack: AsyncExitStack
) -> list[KeepAliveConnection]:
    """Open a connection to each port; `stack` closes them."""
    return [await stack.enter_async_context(await KeepAliveConnection.open(port)) for port in ports]
