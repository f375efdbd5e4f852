"""The poll for changes, at servers that can't tell whether they were failed over to."""

import asyncio
import logging
from collections.abc import Callable

import pytest

from broker.clock import SystemClock
from broker.database.clock import DatabaseClock
from broker.database.database import Database, StorageUnavailable
from broker.doctor.database_part import ask_database, check_failovers
from broker.grants.change_feed import GrantChanges
from broker.grants.known_changes import KnownChanges
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
"""As Amazon Aurora does without logical replication, on its primary and on its readers."""

IN_RECOVERY = (
    "CREATE FUNCTION public.pg_is_in_recovery() RETURNS boolean LANGUAGE sql AS 'SELECT true'"
)


ALWAYS = 1_000_000


async def _forbid(postgres: EmbeddedPostgres, database: str, times: int = ALWAYS) -> None:
    """Let the server refuse to tell its timeline, to connections that are made from now on."""
    for sql in (
        REFUSES.format(times=times),
        f'ALTER DATABASE "{database}" SET search_path = public, pg_catalog',
    ):
        await asyncio.to_thread(postgres.execute, sql, database)


@pytest.fixture
async def aurora(database_url: str, database_name: str, postgres: EmbeddedPostgres) -> str:
    """The address of a server that does not tell its timeline."""
    await _forbid(postgres, database_name)
    return database_url


def _changes(
    database: Database,
    clock: ManualClock,
    known: KnownChanges,
    on_failover: Callable[[object], None] = lambda _known: None,
) -> GrantChanges:
    return GrantChanges(
        database,
        DatabaseClock(clock),
        known,
        on_refreshed=lambda _grant: None,
        on_failover=on_failover,
        on_poll=lambda _began: None,
    )


async def test_a_server_that_does_not_tell_its_timeline_is_followed_with_a_warning(
    aurora: str,
    database: Database,
    store: GrantStore,
    clock: ManualClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    known = KnownChanges(clock)
    heard = asyncio.Event()
    known.subscribe(lambda _user, _grant, _version: heard.set())
    changes = _changes(database, clock, known)
    with caplog.at_level(logging.WARNING, "broker.grants.change_feed"):
        await changes.poll()
    assert "does not tell its timeline" in caplog.text
    following = asyncio.create_task(changes.follow())
    await store.connect(consent(clock))
    async with asyncio.timeout(20):
        await heard.wait()
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    facts = await ask_database(Secret(aurora), SystemClock())
    assert "timeline" in check_failovers(facts)[0].what


async def test_a_reader_that_does_not_tell_its_timeline_is_not_taken_for_the_primary(
    aurora: str,
    database_name: str,
    postgres: EmbeddedPostgres,
    clock: ManualClock,
) -> None:
    await asyncio.to_thread(postgres.execute, IN_RECOVERY, database_name)
    reader = Database(Secret(aurora))
    await reader.open()
    with pytest.raises(StorageUnavailable):
        await _changes(reader, clock, KnownChanges(clock)).poll()
    await reader.close()


async def test_a_server_that_tells_no_timeline_any_more_is_another(
    database: Database, database_name: str, postgres: EmbeddedPostgres, clock: ManualClock
) -> None:
    failovers: list[object] = []
    changes = _changes(database, clock, KnownChanges(clock), failovers.append)
    await changes.poll()
    await _forbid(postgres, database_name)
    await changes.poll()
    await changes.poll()
    assert len(failovers) == 1


async def test_one_that_is_promoted_between_the_first_question_and_the_poll_is_asked_again(
    database: Database, database_name: str, postgres: EmbeddedPostgres, clock: ManualClock
) -> None:
    failovers: list[object] = []
    changes = _changes(database, clock, KnownChanges(clock), failovers.append)
    await changes.poll()
    await _forbid(postgres, database_name, times=1)
    with pytest.raises(StorageUnavailable):
        await changes.poll()
    reset = f'ALTER DATABASE "{database_name}" RESET search_path'
    await asyncio.to_thread(postgres.execute, reset)
    await changes.poll()
    assert failovers == []
