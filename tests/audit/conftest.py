"""A trail on a real table, and its verification."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import pytest

from broker.audit.batch_macs import ChainHead
from broker.audit.trail import AuditTrail
from broker.audit.verification import TrailVerifier
from broker.database.database import Database
from broker.secret import Secret
from broker.telemetry.metrics import Metrics
from tests.support.audit import KEYS
from tests.support.clock import ManualClock

Look = Callable[..., Awaitable[list[str]]]


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(Secret(database_url))
    await database.open()
    yield database
    await database.close()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def trail(database: Database, clock: ManualClock, metrics: Metrics) -> AuditTrail:
    return AuditTrail(database, clock, metrics, KEYS)


@pytest.fixture
def look(database: Database) -> Look:
    """Return the faults of the trail as it is now."""

    async def look(*, heads: Sequence[ChainHead] = (), **options: object) -> list[str]:
        verification = TrailVerifier(KEYS, heads=heads, **options)  # type: ignore[arg-type]
        async with database.connection() as connection:
            return [str(fault) async for fault in verification.faults(connection)]

    return look
