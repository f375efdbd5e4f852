"""Taking away what the broker in the test's process stands on, and giving it back."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from broker.devstack.postgres import EmbeddedPostgres
from tests.support.world import World


@asynccontextmanager
async def database_away(world: World, postgres: EmbeddedPostgres) -> AsyncIterator[None]:
    """Nobody can connect to the test's database, and who was connected no longer is."""
    name = world.settings.database_url.reveal().rsplit("/", 1)[1]
    allow = f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS'
    end = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
    await asyncio.to_thread(postgres.execute, f"{allow} false")
    await asyncio.to_thread(postgres.execute, end)
    try:
        yield
    finally:
        await asyncio.to_thread(postgres.execute, f"{allow} true")
