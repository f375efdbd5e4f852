"""Behind a pooler too, PostgreSQL ends the wait for a lock before the client gives up."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

import asyncpg
import pytest
import pytest_asyncio

from broker.crypto.sealing import Sealer, local_sealing_keys
from broker.database.database import Database, StorageContended
from broker.grants.fingerprints import FingerprintBackfill, TokenFingerprints
from broker.grants.refresh_lease import Lease, RefreshLeases
from broker.grants.store import GrantStore
from broker.secret import Secret
from tests.grants.test_store import KEY, consent
from tests.support.clock import ManualClock

SEALER = Sealer(local_sealing_keys([KEY]))


@pytest_asyncio.fixture
async def pooled(database_url: str) -> AsyncIterator[Database]:
    """A database behind a pooler: its connections have no session settings."""
    opened = Database(Secret(database_url))
    opened._connector.note_pooler()
    await opened.open()
    yield opened
    await opened.close()


@asynccontextmanager
async def _locked(database_url: str, query: str) -> AsyncIterator[None]:
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute(f"BEGIN; {query}")
        yield
    finally:
        await connection.close()


async def test_releasing_a_lease(pooled: Database, database_url: str, clock: ManualClock) -> None:
    store = GrantStore(pooled, SEALER, clock, keep_access_tokens=True)
    grant = await store.connect(consent(clock))
    leases = RefreshLeases(pooled, clock)
    lease = await leases.acquire(grant.id, "calendar", duration=timedelta(seconds=10))
    assert isinstance(lease, Lease)
    async with _locked(database_url, "SELECT 1 FROM refresh_leases FOR UPDATE"):
        await _is_contended(lambda: leases.release(lease))


async def test_the_fingerprint_backfill(
    pooled: Database, database_url: str, clock: ManualClock
) -> None:
    store = GrantStore(pooled, SEALER, clock, keep_access_tokens=True)
    await store.connect(consent(clock))
    backfill = FingerprintBackfill(pooled, SEALER, TokenFingerprints([KEY]))
    async with _locked(database_url, "LOCK TABLE refresh_token_lookups IN EXCLUSIVE MODE"):
        await _is_contended(backfill.run_once)


async def _is_contended(blocked: Callable[[], Awaitable[None]]) -> None:
    with pytest.raises(StorageContended):
        await blocked()
