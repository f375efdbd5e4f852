"""A caller that asks now and then, and looks at what it gets: status, body, how long it took."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Heard:
    """One answer."""

    status: int
    body: bytes
    seconds: float
    at: float
    """When it was whole, by `time.perf_counter`."""


class Line:
    """A keep-alive connection; one question at a time."""

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

    async def ask(self, request: bytes) -> Heard:
        """Send a request and take its whole answer."""
        began = time.perf_counter()
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        _, found, rest = head.lower().partition(b"\r\ncontent-length: ")
        length = int(rest.partition(b"\r\n")[0]) if found else 0
        body = await self._reader.readexactly(length)
        now = time.perf_counter()
        return Heard(int(head.split(b" ", 2)[1]), body, now - began, now)


async def ask_each(port: int, requests: Sequence[bytes]) -> list[Heard]:
    """One after the other, on one connection."""
    async with await Line.open(port) as line:
        return [await line.ask(request) for request in requests]


async def open_lines(ports: Sequence[int], stack: AsyncExitStack) -> list[Line]:
    """A connection to each, for as long as the stack lasts."""
    return [await stack.enter_async_context(await Line.open(port)) for port in ports]
