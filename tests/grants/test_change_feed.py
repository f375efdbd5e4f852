"""The change feed of servers that do not report their timeline, and its notifications."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

from broker.clock import SystemClock
from broker.database.clock import DatabaseClock
from broker.database.database import Database, StorageUnavailable
from broker.doctor.database_check import check_failovers, fetch_database_facts
from broker.grants.change_feed import GRANTS_CHANNEL, REFRESHES_CHANNEL, ChangeFeed
from broker.grants.recent_changes import RecentChanges
from broker.grants.store import GrantStore
from broker.secret import Secret
from devstack.postgres import EmbeddedPostgres
from tests.grants.test_store import consent
from tests.support.clock import ManualClock

REFUSES = """
CREATE SEQUENCE public.refused;
CREATE FUNCTION public.pg_current_wal_lsn() RETURNS pg_lsn LANGUAGE plpgsql AS $$
BEGIN
    IF nextval('public.refused') > {times} THEN
        RETURN pg_catalog.pg_current_wal_lsn();
    END IF;
    RAISE EXCEPTION 'wal_level must be set to ''logical''' USING ERRCODE = '55000';
END $$
"""
"""Amazon Aurora does this without logical replication, on its primary and on its readers."""

IN_RECOVERY = (
    "CREATE FUNCTION public.pg_is_in_recovery() RETURNS boolean LANGUAGE sql AS 'SELECT true'"
)


ALWAYS = 1_000_000


async def _refuse_timeline(postgres: EmbeddedPostgres, database: str, times: int = ALWAYS) -> None:
    """Let the server refuse to report its timeline on new connections."""
    for sql in (
        REFUSES.format(times=times),
        f'ALTER DATABASE "{database}" SET search_path = public, pg_catalog',
    ):
        await asyncio.to_thread(postgres.execute, sql, database)


@pytest.fixture
async def aurora(database_url: str, database_name: str, postgres: EmbeddedPostgres) -> str:
    """The address of a server that does not report its timeline."""
    await _refuse_timeline(postgres, database_name)
    return database_url


def _feed(
    database: Database,
    clock: ManualClock,
    recent_changes: RecentChanges,
    on_failover: Callable[[object], None] = lambda _known: None,
) -> ChangeFeed:
    return ChangeFeed(
        database,
        DatabaseClock(clock),
        recent_changes,
        on_refreshed=lambda _grant: None,
        on_failover=on_failover,
        on_poll=lambda _began: None,
    )


async def test_a_server_without_a_timeline_is_followed_with_a_warning(
    aurora: str,
    database: Database,
    store: GrantStore,
    clock: ManualClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    recent_changes = RecentChanges(clock)
    notified = asyncio.Event()
    recent_changes.subscribe(lambda _user, _grant, _version: notified.set())
    feed = _feed(database, clock, recent_changes)
    with caplog.at_level(logging.WARNING, "broker.grants.change_feed"):
        await feed.poll()
    events = [vars(record).get("event") for record in caplog.records]
    assert "postgres_timeline_unavailable" in events
    following = asyncio.create_task(feed.follow())
    await store.connect(consent(clock))
    async with asyncio.timeout(20):
        await notified.wait()
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    facts = await fetch_database_facts(Secret(aurora), SystemClock())
    assert "timeline" in check_failovers(facts)[0].what


async def test_a_reader_without_a_timeline_is_not_mistaken_for_the_primary(
    aurora: str,
    database_name: str,
    postgres: EmbeddedPostgres,
    clock: ManualClock,
) -> None:
    await asyncio.to_thread(postgres.execute, IN_RECOVERY, database_name)
    reader = Database(Secret(aurora))
    await reader.open()
    with pytest.raises(StorageUnavailable):
        await _feed(reader, clock, RecentChanges(clock)).poll()
    await reader.close()


async def test_a_server_that_stops_reporting_its_timeline_is_another_server(
    database: Database, database_name: str, postgres: EmbeddedPostgres, clock: ManualClock
) -> None:
    failovers: list[object] = []
    feed = _feed(database, clock, RecentChanges(clock), failovers.append)
    await feed.poll()
    await _refuse_timeline(postgres, database_name)
    await feed.poll()
    await feed.poll()
    assert len(failovers) == 1


async def test_a_server_promoted_before_its_first_poll_is_polled_again(
    database: Database, database_name: str, postgres: EmbeddedPostgres, clock: ManualClock
) -> None:
    failovers: list[object] = []
    feed = _feed(database, clock, RecentChanges(clock), failovers.append)
    await feed.poll()
    await _refuse_timeline(postgres, database_name, times=1)
    with pytest.raises(StorageUnavailable):
        await feed.poll()
    reset = f'ALTER DATABASE "{database_name}" RESET search_path'
    await asyncio.to_thread(postgres.execute, reset)
    await feed.poll()
    assert failovers == []


# ---- notifications, without a database


def _notify(channel: str, payload: object) -> list[object]:
    """Return what a feed without a database does with a notification."""
    clock = ManualClock()
    heard: list[object] = []
    recent_changes = RecentChanges(clock)
    recent_changes.subscribe(lambda *change: heard.append(change))
    no_database: Any = None
    feed = ChangeFeed(
        no_database,
        DatabaseClock(clock),
        recent_changes,
        on_refreshed=heard.append,
        on_failover=heard.append,
        on_poll=heard.append,
    )
    connection: Any = None
    feed._on_notification(connection, 1, channel, payload)
    return heard


@pytest.mark.parametrize(
    ("channel", "payload", "expected"),
    [
        (GRANTS_CHANNEL, f"{UUID(int=7)} 3 user-1", [("user-1", UUID(int=7), 3)]),
        (
            GRANTS_CHANNEL,
            f"{UUID(int=7)} 3 user with spaces",
            [("user with spaces", UUID(int=7), 3)],
        ),
        (REFRESHES_CHANNEL, str(UUID(int=7)), [UUID(int=7)]),
    ],
    ids=["a change", "a user id with spaces", "a refresh"],
)
def test_a_notification_is_passed_on(channel: str, payload: str, expected: list[object]) -> None:
    assert _notify(channel, payload) == expected


@pytest.mark.parametrize(
    ("channel", "payload"),
    [
        (GRANTS_CHANNEL, ""),
        (GRANTS_CHANNEL, f"{UUID(int=7)} three user-1"),
        (GRANTS_CHANNEL, "7 3 user-1"),
        (GRANTS_CHANNEL, f"{UUID(int=7)} 3"),
        (REFRESHES_CHANNEL, "seven"),
        (REFRESHES_CHANNEL, None),
    ],
)
def test_an_invalid_notification_is_logged_and_ignored(
    channel: str, payload: object, caplog: pytest.LogCaptureFixture
) -> None:
    assert _notify(channel, payload) == []
    assert [vars(record)["event"] for record in caplog.records] == ["change_notification_invalid"]
