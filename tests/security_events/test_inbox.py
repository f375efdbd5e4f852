"""The inbox: purged in portions; effects of a lost commit."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest_asyncio

from broker.audit.trail import AuditTrail
from broker.crypto.sealing import Sealer, local_sealing_keys
from broker.database.database import Database
from broker.google.security_events import CLOCK_AHEAD_AT_MOST, OLDEST_EVENT_TOKEN
from broker.grants.account_grants import AccountGrants
from broker.grants.fingerprints import TokenFingerprints
from broker.grants.pending_consents.table import AccountPendingConsents, PendingConsentTable
from broker.grants.revocation_outbox import RevocationOutbox
from broker.secret import Secret
from broker.security_events.grant_effects import GrantEffects
from broker.security_events.inbox import KEPT, SecurityEventInbox
from broker.security_events.pending_consent_effects import PendingConsentEffects
from broker.security_events.records import SecurityEventRecords
from broker.telemetry.failed_revocations import FailedRevocations
from broker.telemetry.metrics import Metrics
from tests.support.audit import KEYS
from tests.support.clock import ManualClock
from tests.support.lossy_link import LossyLink
from tests.support.probes import audited
from tests.support.security_events import post, state
from tests.support.world import ADA, World

KEY = Secret("k" * 32)


@pytest_asyncio.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    opened = Database(Secret(database_url))
    await opened.open()
    yield opened
    await opened.close()


def inbox(database: Database, clock: ManualClock) -> SecurityEventInbox:
    metrics = Metrics()
    fingerprints = TokenFingerprints([KEY])
    changes = AccountGrants(fingerprints, clock)
    sealer = Sealer(local_sealing_keys([KEY]))
    outbox = RevocationOutbox(database, sealer, clock)
    table = PendingConsentTable(sealer, outbox, fingerprints)
    count_pending = AccountPendingConsents(fingerprints, table)
    return SecurityEventInbox(
        database=database,
        effects=GrantEffects(changes, PendingConsentEffects(count_pending), clock),
        records=SecurityEventRecords(AuditTrail(database, clock, metrics, KEYS), metrics),
        failed=FailedRevocations(),
        clock=clock,
        forget=lambda _user_id: None,
    )


def test_a_token_id_is_kept_longer_than_the_token_is_accepted() -> None:
    assert KEPT > OLDEST_EVENT_TOKEN + CLOCK_AHEAD_AT_MOST


async def test_rows_older_than_31_days_are_purged(database: Database, clock: ManualClock) -> None:
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


async def test_many_tokens_are_purged_in_portions(database: Database, clock: ManualClock) -> None:
    await database.execute(
        "INSERT INTO security_event_tokens "
        "SELECT 'jti-' || n, '{}', NULL, $1, $1 FROM generate_series(1, 100000) n",
        clock.now() - timedelta(days=32),
    )
    await inbox(database, clock).purge()
    assert await database.fetchval("SELECT count(*) FROM security_event_tokens") == 90_000


async def test_the_effect_of_a_lost_commit_is_audited(
    linked_world: tuple[LossyLink, World],
) -> None:
    link, world = linked_world
    await world.connect()
    link.drop_response_to(b"INSERT INTO security_event_tokens", b"COMMIT")
    token = world.standin.security_event("tokens-revoked", ADA)
    assert (await post(world, token)).status_code == 503
    assert link.has_dropped_response
    (record,) = await audited(world, "security_event", "tokens-revoked:erased:unsettled")
    assert (record["user_id"], record["account_sub"]) == ("user-1", world.standin.account(ADA).sub)
    assert (await post(world, token)).status_code == 202
    assert (await state(world))[0][2] == "google_tokens_revoked"
    assert await audited(world, "security_event", "tokens-revoked:duplicate")
