"""What has acted is forgotten in time, a portion at a time."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest_asyncio

from broker.audit.trail import AuditTrail
from broker.crypto.sealing import Sealer, local_sealing_keys
from broker.database.database import Database
from broker.google.security_event_tokens import EARLY, OLDEST
from broker.grants.account_changes import AccountChanges
from broker.grants.endings import ConsentEndings
from broker.grants.lookups import TokenLookups
from broker.grants.pending.changes import WaitingChanges
from broker.secret import Secret
from broker.security_events.effects import SecurityEffects
from broker.security_events.inbox import KEPT, SecurityEventInbox
from broker.security_events.waiting_effects import WaitingEffects
from broker.telemetry.failed_revocations import FailedRevocations
from broker.telemetry.metrics import Metrics
from tests.support.audit import KEYS
from tests.support.clock import ManualClock

KEY = Secret("k" * 32)


@pytest_asyncio.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    opened = Database(Secret(database_url))
    await opened.open()
    yield opened
    await opened.close()


def inbox(database: Database, clock: ManualClock) -> SecurityEventInbox:
    metrics = Metrics()
    lookups = TokenLookups([KEY])
    changes = AccountChanges(lookups, clock)
    waiting = WaitingChanges(lookups, ConsentEndings(Sealer(local_sealing_keys([KEY])), clock))
    return SecurityEventInbox(
        database=database,
        effects=SecurityEffects(changes, WaitingEffects(waiting), clock),
        audit=AuditTrail(database, clock, metrics, KEYS),
        metrics=metrics,
        failed=FailedRevocations(),
        clock=clock,
        client_id=lambda: "client",
        forget=lambda _user_id: None,
    )


def test_a_token_is_remembered_for_longer_than_it_is_accepted() -> None:
    assert KEPT > OLDEST + EARLY


async def test_what_is_older_than_31_days_is_forgotten(
    database: Database, clock: ManualClock
) -> None:
    for days in (30, 32):
        at = clock.now() - timedelta(days=days)
        await database.execute(
            "INSERT INTO security_event_tokens VALUES ($1, '{}', NULL, $2, $2)", f"jti-{days}", at
        )
        await database.execute(
            "INSERT INTO account_states VALUES ($1, true, $2, $2)", f"sub-{days}", at
        )
    await inbox(database, clock).purge()
    assert [row[0] for row in await database.fetch("SELECT jti FROM security_event_tokens")] == [
        "jti-30"
    ]
    assert [row[0] for row in await database.fetch("SELECT google_sub FROM account_states")] == [
        "sub-30"
    ]


async def test_a_flood_of_tokens_is_purged_a_portion_at_a_time(
    database: Database, clock: ManualClock
) -> None:
    await database.execute(
        "INSERT INTO security_event_tokens "
        "SELECT 'jti-' || n, '{}', NULL, $1, $1 FROM generate_series(1, 100000) n",
        clock.now() - timedelta(days=32),
    )
    await inbox(database, clock).purge()
    assert await database.fetchval("SELECT count(*) FROM security_event_tokens") == 90_000
