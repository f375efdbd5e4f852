"""Fixtures of the tests in a real browser: Chromium, and a broker that it can reach."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from broker.server.uvicorn_server import bind
from broker.settings import Listen
from devstack.google_standin import GoogleStandin
from tests.browser.support import serving_world
from tests.support.browser import bfcache_page, chromium, page
from tests.support.clock import ManualClock
from tests.support.world import World

__all__ = ["bfcache_page", "chromium", "page"]


@pytest_asyncio.fixture
async def served(
    tmp_path: Path, database_url: str, standin: GoogleStandin, clock: ManualClock
) -> AsyncIterator[World]:
    """The whole broker, its public listener on a port of loopback."""
    listening = bind(Listen("127.0.0.1", 0))
    origin = f"http://127.0.0.1:{listening.getsockname()[1]}"
    async with serving_world(
        tmp_path, database_url, standin, clock, listening=listening, origin=origin
    ) as world:
        yield world
