"""The tables of grants are purged of old rows, some pages at a time."""

from collections.abc import AsyncIterator
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import asyncpg
import pytest

from broker.crypto.sealing import Sealer, local_sealing_keys
from broker.database.database import Database
from broker.database.queries import load_queries
from broker.grants import purging
from broker.grants.model import AccessToken, Consent, Grant, GrantStatus
from broker.grants.purging import KEPT_AFTER_EXPIRY, KEPT_AFTER_REVOCATION, GrantPurge
from broker.grants.refresh_lease import Lease, RefreshLeases
from broker.grants.store import GrantStore
from broker.secret import Secret
from devstack.google_standin import GoogleStandin
from tests.support.clock import ManualClock
from tests.support.waiting import eventually
from tests.support.world import open_world

SCOPES = ("openid", "calendar")
TABLES = ("access_tokens", "refresh_leases", "grants")


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    opened = Database(Secret(database_url))
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
def store(database: Database, clock: ManualClock) -> GrantStore:
    sealer = Sealer(local_sealing_keys([Secret("k" * 40)]))
    return GrantStore(database, sealer, clock, keep_access_tokens=True)


@pytest.fixture
def purge(database: Database, clock: ManualClock) -> GrantPurge:
    return GrantPurge(database, [clock])


def token(clock: ManualClock) -> AccessToken:
    return AccessToken(Secret("ya29"), SCOPES, clock.now(), clock.now() + timedelta(hours=1))


async def connected(store: GrantStore, clock: ManualClock, user_id: str = "user-1") -> Grant:
    return await store.connect(
        Consent(
            user_id=user_id,
            google_sub=f"sub of {user_id}",
            email="ada@example.com",
            client_id="client",
            scopes=SCOPES,
            refresh_token=Secret("1//refresh"),
            access_token=token(clock),
        )
    )


async def count(database: Database, table: str) -> int:
    return int(await database.fetchval(f"SELECT count(*) FROM {table}"))


async def test_only_expired_access_tokens_are_deleted(
    database: Database, store: GrantStore, purge: GrantPurge, clock: ManualClock
) -> None:
    await connected(store, clock)
    clock.advance(timedelta(hours=1) + KEPT_AFTER_EXPIRY)
    await connected(store, clock, "user-2")
    await purge.run_once()
    assert await count(database, "access_tokens") == 2
    clock.advance(timedelta(seconds=1))
    await purge.run_once()
    (left,) = await database.fetch("SELECT grant_id FROM access_tokens")
    (stored,) = await store.find("user-2")
    assert left["grant_id"] == stored.grant.id
    assert len(stored.sealed_access_tokens) == 1


async def test_old_leases_are_deleted_and_their_holders_still_write_nothing(
    database: Database, store: GrantStore, purge: GrantPurge, clock: ManualClock
) -> None:
    grant, leases = await connected(store, clock), RefreshLeases(database, clock)
    first = await leases.acquire(grant.id, "calendar", duration=timedelta(seconds=10))
    clock.advance(timedelta(seconds=10) + KEPT_AFTER_EXPIRY)
    await purge.run_once()
    assert await count(database, "refresh_leases") == 1
    clock.advance(timedelta(seconds=1))
    await purge.run_once()
    assert await count(database, "refresh_leases") == 0
    second = await leases.acquire(grant.id, "calendar", duration=timedelta(seconds=10))
    assert isinstance(first, Lease)
    assert isinstance(second, Lease)

    async def saved_by(lease: Lease) -> Grant | None:
        return await store.save_refresh(
            grant,
            scope_set="calendar",
            access_token=token(clock),
            refresh_token=None,
            lease=lease,
        )

    assert await saved_by(first) is None
    assert await saved_by(second) == grant


async def test_old_revoked_grants_are_deleted(
    database: Database, store: GrantStore, purge: GrantPurge, clock: ManualClock
) -> None:
    await connected(store, clock)
    duration = await connected(store, clock, "user-2")
    await store.revoke("user-1", None, origin="test")
    clock.advance(KEPT_AFTER_REVOCATION)
    await purge.run_once()
    assert [grant.status for grant in await store.list("user-1")] == [GrantStatus.REVOKED]
    clock.advance(timedelta(seconds=1))
    await purge.run_once()
    assert await store.list("user-1") == []
    assert [stored.grant for stored in await store.find("user-2")] == [duration]


async def test_a_purged_grant_is_connected_again_as_a_new_grant(
    database: Database, store: GrantStore, purge: GrantPurge, clock: ManualClock
) -> None:
    before = await connected(store, clock)
    await store.revoke("user-1", None, origin="test")
    clock.advance(KEPT_AFTER_REVOCATION + timedelta(seconds=1))
    await purge.run_once()
    grant = await connected(store, clock)
    assert grant.id != before.id
    assert (grant.version, grant.is_default, grant.connected_at) == (1, True, clock.now())
    (stored,) = await store.find("user-1")
    assert store.open_refresh_token(stored) == Secret("1//refresh")
    events = await database.fetch("SELECT type FROM webhook_events ORDER BY number")
    assert [row["type"] for row in events] == [
        "grant.connected",
        "grant.revoked",
        "grant.connected",
    ]


async def test_a_clock_that_is_ahead_deletes_nothing(
    database: Database, store: GrantStore, clock: ManualClock
) -> None:
    await connected(store, clock)
    await store.revoke("user-1", None, origin="test")
    ahead = ManualClock(clock.now() + timedelta(days=365))
    await GrantPurge(database, [ahead, clock]).run_once()
    assert await count(database, "grants") == 1


async def test_locked_rows_are_skipped_without_waiting(
    database: Database,
    store: GrantStore,
    purge: GrantPurge,
    clock: ManualClock,
    database_url: str,
) -> None:
    for user_id in ("user-1", "user-2"):
        await connected(store, clock, user_id)
        await store.revoke(user_id, None, origin="test")
    clock.advance(KEPT_AFTER_REVOCATION + timedelta(seconds=1))
    other = await asyncpg.connect(database_url)
    try:
        async with other.transaction():
            await other.execute("SELECT FROM grants WHERE user_id = 'user-1' FOR UPDATE")
            await purge.run_once()
            assert [grant.user_id for grant in await store.list("user-1")] == ["user-1"]
            assert await store.list("user-2") == []
    finally:
        await other.close()
    await purge.run_once()
    assert await store.list("user-1") == []


_MANY_REVOKED = """
INSERT INTO grants (id, user_id, google_sub, email, client_id, scopes, status, connected_at,
                    updated_at)
SELECT lpad(to_hex(n), 32, '0')::uuid, 'user-' || n, 'sub', '', 'client', '{}', 'revoked', $1, $1
FROM generate_series(1, 1000) AS n
"""


async def test_a_run_continues_where_the_last_one_stopped_and_is_bounded(
    database: Database, purge: GrantPurge, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(purging, "_PAGES_PER_STATEMENT", 1)
    monkeypatch.setattr(purging, "_PAGES_PER_RUN", 2)
    await database.execute(_MANY_REVOKED, clock.now())
    clock.advance(KEPT_AFTER_REVOCATION + timedelta(seconds=1))
    pages = await database.fetchval("SELECT pg_relation_size('grants') / 8192")
    assert pages > 6
    left, runs = [await count(database, "grants")], 0
    while left[-1]:
        await purge.run_once()
        left.append(await count(database, "grants"))
        runs += 1
        assert runs <= pages
    assert runs == (pages + 1) // 2
    largest = max(before - after for before, after in pairwise(left))
    assert largest < 1000 / pages * 4


_FILLED = {
    "access_tokens": "INSERT INTO access_tokens SELECT gen_random_uuid(), n::text, '{}', "
    "repeat('x', 200)::bytea, 'key', now(), now() FROM generate_series(1, 20000) AS n",
    "refresh_leases": "INSERT INTO refresh_leases SELECT gen_random_uuid(), n::text, 1, now() "
    "FROM generate_series(1, 20000) AS n",
    "grants": _MANY_REVOKED.replace("1000", "20000").replace("$1", "now()"),
}
_QUERIES = {
    "access_tokens": "purge_access_tokens",
    "refresh_leases": "purge_leases",
    "grants": "purge_grants",
}


@pytest.mark.parametrize("analyzed", [True, False], ids=["analyzed", "not analyzed"])
@pytest.mark.parametrize("table", TABLES)
async def test_pages_are_read_without_reading_the_rest_of_the_table(
    database: Database, clock: ManualClock, table: str, analyzed: bool
) -> None:
    async with database.transaction() as connection:
        await connection.execute("SET LOCAL session_replication_role = replica")
        await connection.execute(_FILLED[table])
        if analyzed:
            await connection.execute(f"ANALYZE {table}")
        query = load_queries("broker.grants", "purging.sql")[_QUERIES[table]]
        rows = await connection.fetch(f"EXPLAIN {query}", (10, 0), (20, 0), clock.now())
    plan = "\n".join(row[0] for row in rows)
    assert f"Tid Range Scan on {table}" in plan
    assert f"Tid Scan on {table}" in plan


async def test_a_running_broker_purges(
    tmp_path: Path,
    database: Database,
    store: GrantStore,
    database_url: str,
    standin: GoogleStandin,
    clock: ManualClock,
) -> None:
    grant = await connected(store, clock)
    leases = RefreshLeases(database, clock)
    await leases.acquire(grant.id, "calendar", duration=timedelta(seconds=10))
    await connected(store, clock, "user-2")
    await store.revoke("user-2", None, origin="test")
    clock.advance(KEPT_AFTER_REVOCATION + timedelta(seconds=1))

    async def is_purged() -> bool:
        counted = [await count(database, table) for table in TABLES]
        return counted == [0, 0, 1]

    async with open_world(tmp_path, database_url, standin, clock):
        await eventually(is_purged)
    assert [stored.grant.id for stored in await store.find("user-1")] == [grant.id]
