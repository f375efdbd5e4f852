"""Fixtures of the tests of the connections page."""

from collections.abc import AsyncIterator

import httpx2
import pytest

from tests.support.world import World


@pytest.fixture
async def browser(world: World) -> AsyncIterator[httpx2.AsyncClient]:
    """A browser with its own cookies."""
    async with world.browser() as opened:
        yield opened
