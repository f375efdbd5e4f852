"""What the tests in a real browser share: Chromium, and a broker that it can reach."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from broker.devstack.google_standin import GoogleStandin
from broker.settings import Listen
from broker.web.server import Listeners, bind
from tests.support.browser import chromium, keeping_page, page
from tests.support.clock import ManualClock
from tests.support.world import CLIENT_ID, CLIENT_SECRET, World, open_world

__all__ = ["chromium", "keeping_page", "page"]


@pytest_asyncio.fixture
async def served(
    tmp_path: Path, database_url: str, standin: GoogleStandin, clock: ManualClock
) -> AsyncIterator[World]:
    """The whole broker, its public listener on a port of loopback."""
    listening = bind(Listen("127.0.0.1", 0))
    redirect_uri = f"http://127.0.0.1:{listening.getsockname()[1]}/auth/google/callback"
    changes = {"GOOGLE_REDIRECT_URI": redirect_uri}
    async with open_world(tmp_path, database_url, standin, clock, changes=changes) as world:
        standin.add_client(CLIENT_ID, CLIENT_SECRET, [redirect_uri])
        listeners = Listeners([(world.broker.public, listening)])
        await listeners.start()
        yield world
        await listeners.stop()
