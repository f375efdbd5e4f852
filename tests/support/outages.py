"""Outages of PostgreSQL."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

from devstack.postgres import EmbeddedPostgres
from tests.support.world import World


@asynccontextmanager
async def database_unavailable(world: World, postgres: EmbeddedPostgres) -> AsyncIterator[None]:
    """End all connections to the test's database, and refuse new ones until the block ends."""
    name = world.settings.database_url.reveal().rsplit("/", 1)[1]
    allow = f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS'
    end = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
    await asyncio.to_thread(postgres.execute, f"{allow} false")
    await asyncio.to_thread(postgres.execute, end)
    try:
        yield
    finally:
        await asyncio.to_thread(postgres.execute, f"{allow} true")


@contextmanager
def hanging_postgres(postgres: EmbeddedPostgres) -> Iterator[None]:
    """Stop the server's processes (SIGSTOP): it accepts connections but never responds."""
    postmaster = postgres.pid
    assert postmaster is not None
    os.kill(postmaster, signal.SIGSTOP)
    stopped = [postmaster, *_children(postmaster)]
    for pid in stopped[1:]:
        _signal(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in stopped:
            _signal(pid, signal.SIGCONT)


def _children(parent: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        # Some processes end meanwhile.
        with suppress(OSError):
            if entry.name.isdecimal() and _parent(entry) == parent:
                found.append(int(entry.name))
    return found


def _parent(entry: Path) -> int:
    after_name = (entry / "stat").read_text(encoding="utf-8").rsplit(")", 1)[1]
    return int(after_name.split()[1])


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
