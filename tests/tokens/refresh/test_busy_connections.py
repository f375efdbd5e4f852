"""More requests need PostgreSQL than there are connections: that is no outage."""

import asyncio
import logging
from datetime import timedelta

import asyncpg
import pytest

from broker.database.database import Database
from tests.support.waiting import eventually
from tests.support.world import World

USERS = [f"user-{number}" for number in range(14)]
"""More than there are connections."""


@pytest.fixture
def patient_statements(monkeypatch: pytest.MonkeyPatch) -> None:
    """Statements wait in the database for as long as the test needs."""
    monkeypatch.setitem(Database.__init__.__kwdefaults__ or {}, "command_seconds", 60.0)
    monkeypatch.setattr("broker.database.timeouts.LOCK_SECONDS", 60.0)


@pytest.mark.usefixtures("patient_statements")
async def test_a_request_without_a_free_connection_does_not_refresh_without_a_lease(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    for user in USERS:
        await world.connect(user)
    world.clock.advance(timedelta(hours=1))
    before = world.refreshes_at_google()
    other: asyncpg.Connection = await asyncpg.connect(world.settings.database_url.reveal())
    try:
        async with other.transaction():
            # Every acquisition of a lease waits for this lock, with a connection.
            await other.execute("LOCK TABLE refresh_leases")
            asking = [asyncio.create_task(world.token(user)) for user in USERS]
            await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)

            async def all_others_wait() -> bool:
                return sum(task.done() for task in asking) + await _waiting(other) == len(USERS)

            # A request without a connection is refused by now, or soon.
            await eventually(all_others_wait, seconds=30)
            refused = [task.result() for task in asking if task.done()]
            assert world.refreshes_at_google() == before
    finally:
        await other.close()
    assert refused
    assert {(each.status_code, each.json()["code"]) for each in refused} == {
        (503, "storage_unavailable")
    }
    assert all(int(each.headers["retry-after"]) >= 1 for each in refused)
    answers = await asyncio.gather(*asking)
    assert len([each for each in answers if each.status_code == 200]) == len(USERS) - len(refused)
    events = {
        vars(record)["event"] for record in caplog.records if record.levelno >= logging.WARNING
    }
    assert events == {"storage_busy"}


async def _waiting(other: asyncpg.Connection) -> int:
    """Return how many wait for a lease, with a connection."""
    # Within a transaction the statistics are a snapshot.
    await other.execute("SELECT pg_stat_clear_snapshot()")
    query = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
        "AND wait_event_type = 'Lock' AND query LIKE '%refresh_leases%'"
    )
    return int(await other.fetchval(query))
