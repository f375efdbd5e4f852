"""No refresh waits for another caller's connections, nor for an unused lease."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from typing import cast
from uuid import uuid4

import asyncpg
import pytest
import pytest_asyncio

from broker.audit.trail import AuditTrail
from broker.crypto.sealing import Sealer, local_sealing_keys
from broker.database import shares
from broker.database.database import Database, StorageBusy
from broker.database.shares import use_share_of_caller
from broker.google.errors import GoogleUnavailable, GrantRefused
from broker.google.oauth import GoogleOAuth, TokenResponse
from broker.grants.refresh_lease import Lease, RefreshLeases
from broker.grants.rows import StoredGrant
from broker.grants.store import GrantStore
from broker.secret import Secret
from broker.secret_sources.current_client import CurrentClient
from broker.secret_sources.source import OAuthClient
from broker.telemetry.metrics import Metrics
from broker.tokens.cache.cached_token import CachedToken
from broker.tokens.cache.token_cache import TokenCache
from broker.tokens.dispenser import SharedGrantReads
from broker.tokens.refresh.google_calls import RefreshCalls
from broker.tokens.refresh.google_refresh import GoogleRefresh, RefreshRecords, Requester
from broker.tokens.refresh.lease_waits import ReplicaLeases, Wakeups
from broker.tokens.refresh.refresher import Refresher
from broker.tokens.refresh.write_behind import WriteBehind
from broker.tokens.results import RefreshResult, google_unavailable
from tests.grants.test_store import KEY, consent
from tests.support.audit import KEYS
from tests.support.clock import ManualClock
from tests.support.waiting import eventually

CLOCK = ManualClock()


@dataclass
class Google:
    """Answers a refresh as the test wants; everything else here is real."""

    answer: Callable[[], TokenResponse] = field(
        default=lambda: TokenResponse(
            access_token=Secret("token"),
            expires_at=CLOCK.now() + timedelta(hours=1),
            scopes=None,
            refresh_token=None,
            id_token=None,
        )
    )

    async def refresh(self, **_asked: object) -> TokenResponse:
        return self.answer()


@dataclass(frozen=True)
class Client:
    """The OAuth client that all grants here belong to."""

    client: OAuthClient


@dataclass(frozen=True)
class Bench:
    """A refresher on a database of its own."""

    database: Database
    store: GrantStore
    leases: RefreshLeases
    google: Google
    calls: RefreshCalls
    refresher: Refresher

    async def grant(self, user_id: str) -> StoredGrant:
        await self.store.connect(consent(CLOCK, user_id=user_id, google_sub=f"sub-{user_id}"))
        (stored,) = await self.store.find(user_id)
        return stored

    async def refresh(self, caller: str, stored: StoredGrant) -> RefreshResult:
        use_share_of_caller(caller)
        return await self.refresher.refresh(stored, stored.grant.scopes, Requester(caller))


@pytest_asyncio.fixture
async def bench(database_url: str) -> AsyncIterator[Bench]:
    database = Database(Secret(database_url))
    await database.open()
    metrics, google = Metrics(), Google()
    store = GrantStore(database, Sealer(local_sealing_keys([KEY])), CLOCK, keep_access_tokens=True)
    leases = RefreshLeases(database, CLOCK)
    client = OAuthClient(client_id="client", client_secret=Secret("secret"), version=1)
    cache, replica_leases = TokenCache(), ReplicaLeases(leases, Wakeups())
    calls = RefreshCalls(
        google=cast(GoogleOAuth, google), client=cast(CurrentClient, Client(client)), clock=CLOCK
    )
    google_refresh = GoogleRefresh(
        grants=store,
        calls=calls,
        leases=replica_leases,
        write_behind=WriteBehind(store),
        cache=cache,
        records=RefreshRecords(metrics, AuditTrail(database, CLOCK, metrics, KEYS)),
        clock=CLOCK,
    )
    refresher = Refresher(
        grants=store, cache=cache, leases=replica_leases, calls=calls, google=google_refresh
    )
    yield Bench(database, store, leases, google, calls, refresher)
    await refresher.aclose()
    await database.close()


async def test_a_refresh_that_waits_for_connections_holds_up_no_other_caller(
    bench: Bench,
) -> None:
    stored = await bench.grant("ada")
    async with AsyncExitStack() as stack:
        use_share_of_caller("loud")
        for _ in range(shares.CALLER_CONNECTIONS):
            await stack.enter_async_context(bench.database.connection())
        loud = asyncio.create_task(bench.refresh("loud", stored))
        await eventually(lambda: _waits(bench, "loud"))
        modest = await asyncio.create_task(bench.refresh("modest", stored))
        assert isinstance(modest, CachedToken)
        with pytest.raises(StorageBusy):
            await loud


async def _waits(bench: Bench, caller: str) -> bool:
    return bench.database._pool._shares.waiting(f"caller {caller}") > 0


async def test_a_refusal_that_cannot_be_stored_leaves_no_lease_behind(
    bench: Bench, database_url: str
) -> None:
    def refuse() -> TokenResponse:
        raise GrantRefused("invalid_grant")

    bench.google.answer = refuse
    stored = await bench.grant("ada")
    other = await asyncpg.connect(database_url)
    try:
        async with other.transaction():
            await other.execute("SELECT 1 FROM grants FOR NO KEY UPDATE")
            with pytest.raises(StorageBusy):
                await bench.refresh("sync", stored)
    finally:
        await other.close()
    taken = await bench.leases.acquire(
        stored.grant.id, " ".join(sorted(stored.grant.scopes)), duration=timedelta(seconds=1)
    )
    assert isinstance(taken, Lease)


async def test_a_grant_that_was_never_sent_to_google_is_not_backed_off(bench: Bench) -> None:
    stored = await bench.grant("ada")
    good = bench.google.answer

    def busy() -> TokenResponse:
        raise GoogleUnavailable("busy")

    bench.google.answer = busy
    assert await bench.refresh("sync", stored) == google_unavailable()
    bench.google.answer = good
    assert isinstance(await bench.refresh("sync", stored), CachedToken)


async def test_refreshes_that_wait_for_their_lease_are_no_probes(bench: Bench) -> None:
    """They have not called Google, so their slowness says nothing about it."""
    breaker = bench.calls._breaker
    for _ in range(5):
        breaker.failed(uuid4())
    assert breaker.is_open
    waiting = [await bench.grant(f"user-{number}") for number in range(3)]
    stored = await bench.grant("ada")
    async with AsyncExitStack() as stack:
        use_share_of_caller("loud")
        for _ in range(shares.CALLER_CONNECTIONS):
            await stack.enter_async_context(bench.database.connection())
        loud = [asyncio.create_task(bench.refresh("loud", each)) for each in waiting]
        await eventually(lambda: _all_wait(bench, "loud", len(loud)))
        modest = await asyncio.create_task(bench.refresh("modest", stored))
        assert isinstance(modest, CachedToken)
    await asyncio.gather(*loud, return_exceptions=True)


async def _all_wait(bench: Bench, caller: str, count: int) -> bool:
    return bench.database._pool._shares.waiting(f"caller {caller}") == count


async def test_a_shared_read_reports_busy_connections_and_no_outage(
    bench: Bench,
) -> None:
    reads, cache = SharedGrantReads(bench.store), TokenCache()
    async with AsyncExitStack() as stack:
        use_share_of_caller("loud")
        for _ in range(shares.CALLER_CONNECTIONS):
            await stack.enter_async_context(bench.database.connection())
        errors = await asyncio.gather(
            *(reads.read("ada", cache.watch("ada")) for _ in range(3)), return_exceptions=True
        )
    assert [type(error) for error in errors] == [StorageBusy] * 3
