"""Waiting for something to become true, with an end to it."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from broker.secret_sources.current import CurrentClient
from broker.secret_sources.source import ClientSource

StartWatching = Callable[[ClientSource], Awaitable[CurrentClient]]
"""The fixture `start_watching`."""


async def eventually(condition: Callable[[], bool], *, within: float = 20.0) -> None:
    """Return as soon as `condition` holds; fail after `within` seconds."""
    deadline = time.monotonic() + within
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < deadline, f"not true within {within} s"
        await asyncio.sleep(0.02)
