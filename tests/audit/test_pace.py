"""Many audit records: written before their time, in statements of bounded size."""

from collections.abc import AsyncIterator

import pytest

from broker.audit.trail import MUCH, AuditTrail, told_outcome, told_user
from broker.database.database import Database
from broker.secret import Secret
from broker.telemetry.metrics import Metrics
from tests.support.audit import KEYS
from tests.support.clock import ManualClock

SOMETHING, SOMEBODY = told_outcome("a", "b"), told_user(None, None, ())


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(Secret(database_url))
    await database.open()
    yield database
    await database.close()


def _add(trail: AuditTrail, count: int) -> None:
    for _ in range(count):
        trail.add(1.0, SOMETHING, b"id", SOMEBODY)


async def test_much_that_waits_is_due_at_once(database: Database, clock: ManualClock) -> None:
    trail = AuditTrail(database, clock, Metrics(), KEYS)
    _add(trail, MUCH - 1)
    assert not trail.due.is_set()
    _add(trail, 1)
    assert trail.due.is_set()


async def test_what_waits_is_told_to_operators(database: Database, clock: ManualClock) -> None:
    metrics = Metrics()
    trail = AuditTrail(database, clock, metrics, KEYS)
    _add(trail, 3)
    assert metrics.registry.get_sample_value("broker_audit_records_waiting") == 3
    await trail.flush()
    assert metrics.registry.get_sample_value("broker_audit_records_waiting") == 0


async def test_more_than_one_statement_takes_is_written_by_one_flush(
    database: Database, clock: ManualClock
) -> None:
    trail = AuditTrail(database, clock, Metrics(), KEYS)
    _add(trail, 25_000)
    await trail.flush()
    statements = "SELECT count(*), count(DISTINCT xmin::text) AS statements FROM audit_events"
    row = await database.fetchrow(statements)
    assert row is not None
    assert dict(row) == {"count": 25_000, "statements": 3}
