"""Waiting for a condition, with a time limit."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from broker.secret_sources.current_client import CurrentClient
from broker.secret_sources.source import ClientSource

StartWatching = Callable[[ClientSource], Awaitable[CurrentClient]]
"""The fixture `start_watching`."""


async def eventually(condition: Callable[[], bool], *, within: float = 20.0) -> None:
    """Return once `condition` is true; fail after `within` seconds."""
    deadline = time.monotonic() + within
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < deadline, f"not true within {within} s"
        await asyncio.sleep(0.02)


def logged_events(caplog: pytest.LogCaptureFixture) -> list[object]:
    """The ids of the log records' events."""
    return [vars(record).get("event") for record in caplog.records]
