"""More needs the database at once than there are connections: that is no outage of it."""

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
    """For statements that wait in the database for as long as the test wants them to."""
    monkeypatch.setitem(Database.__init__.__kwdefaults__ or {}, "command_seconds", 60.0)
    monkeypatch.setattr("broker.database.timeouts.LOCK_SECONDS", 60.0)


@pytest.mark.usefixtures("patient_statements")
async def test_who_finds_no_free_connection_does_not_ask_google_out_of_turn(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    for user in USERS:
        await world.connect(user)
    world.clock.advance(timedelta(hours=1))
    before = world.refreshes_at_google()
    somebody: asyncpg.Connection = await asyncpg.connect(world.settings.database_url.reveal())
    try:
        async with somebody.transaction():
            # Whoever wants a turn waits for this, with a connection.
            await somebody.execute("LOCK TABLE refresh_leases")
            asking = [asyncio.create_task(world.token(user)) for user in USERS]
            await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)

            async def all_others_wait() -> bool:
                return sum(task.done() for task in asking) + await _waiting(somebody) == len(USERS)

            # Whoever has no connection is refused by now, or in a moment.
            await eventually(all_others_wait, seconds=30)
            refused = [task.result() for task in asking if task.done()]
            assert world.refreshes_at_google() == before
    finally:
        await somebody.close()
    assert refused
    assert {(each.status_code, each.json()["code"]) for each in refused} == {
        (503, "storage_unavailable")
    }
    assert all(int(each.headers["retry-after"]) >= 1 for each in refused)
    answers = await asyncio.gather(*asking)
    assert len([each for each in answers if each.status_code == 200]) == len(USERS) - len(refused)
    told = {record.message for record in caplog.records if record.levelno >= logging.WARNING}
    assert told == {"all connections to storage are in use"}


async def _waiting(somebody: asyncpg.Connection) -> int:
    """How many wait for a turn, with a connection."""
    # Within a transaction it would see for ever what it saw first.
    await somebody.execute("SELECT pg_stat_clear_snapshot()")
    query = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
        "AND wait_event_type = 'Lock' AND query LIKE '%refresh_leases%'"
    )
    return int(await somebody.fetchval(query))
