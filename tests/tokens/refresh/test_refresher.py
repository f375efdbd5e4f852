"""A refresh keeps nobody waiting for another caller's connections, nor for a lease of no use."""

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
from broker.google.oauth import GoogleOAuth, TokenAnswer
from broker.grants.refresh_lease import Lease, RefreshLeases
from broker.grants.rows import StoredGrant
from broker.grants.store import GrantStore
from broker.secret import Secret
from broker.secret_sources.client import OAuthClient
from broker.secret_sources.current import CurrentClient
from broker.telemetry.metrics import Metrics
from broker.tokens.cache.cached_token import HeldToken
from broker.tokens.cache.shared_reads import SharedLooks
from broker.tokens.cache.token_cache import HeldTokens
from broker.tokens.refresh.refresher import Behalf, Refresher, RefreshResult
from broker.tokens.refresh.wakeups import Wakeups
from broker.tokens.refresh.write_behind import UnsavedRefreshes
from broker.web.problems import Problem
from tests.grants.test_store import KEY, consent
from tests.support.audit import KEYS
from tests.support.clock import ManualClock
from tests.support.waiting import eventually

CLOCK = ManualClock()


@dataclass
class Google:
    """Answers a refresh as the test wants it; the rest of what is used here is real."""

    answer: Callable[[], TokenAnswer] = field(
        default=lambda: TokenAnswer(
            access_token=Secret("token"),
            expires_at=CLOCK.now() + timedelta(hours=1),
            scopes=None,
            refresh_token=None,
            id_token=None,
        )
    )

    async def refresh(self, **_asked: object) -> TokenAnswer:
        return self.answer()


@dataclass(frozen=True)
class Client:
    """The one that all grants here belong to."""

    client: OAuthClient


@dataclass(frozen=True)
class Bench:
    """A refresher on a database of its own."""

    database: Database
    store: GrantStore
    leases: RefreshLeases
    google: Google
    refresher: Refresher

    async def grant(self, user_id: str) -> StoredGrant:
        await self.store.connect(consent(CLOCK, user_id=user_id, google_sub=f"sub-{user_id}"))
        (stored,) = await self.store.find(user_id)
        return stored

    async def refresh(self, caller: str, stored: StoredGrant) -> RefreshResult:
        use_share_of_caller(caller)
        return await self.refresher.refresh(stored, stored.grant.scopes, Behalf(caller))


@pytest_asyncio.fixture
async def bench(database_url: str) -> AsyncIterator[Bench]:
    database = Database(Secret(database_url))
    await database.open()
    metrics, google = Metrics(), Google()
    store = GrantStore(database, Sealer(local_sealing_keys([KEY])), CLOCK, keep_access_tokens=True)
    leases = RefreshLeases(database, CLOCK)
    client = OAuthClient(client_id="client", client_secret=Secret("secret"), version=1)
    refresher = Refresher(
        grants=store,
        leases=leases,
        google=cast(GoogleOAuth, google),
        client=cast(CurrentClient, Client(client)),
        audit=AuditTrail(database, CLOCK, metrics, KEYS),
        metrics=metrics,
        clock=CLOCK,
        wakeups=Wakeups(),
        unsaved=UnsavedRefreshes(store),
        held=HeldTokens(),
    )
    yield Bench(database, store, leases, google, refresher)
    await refresher.aclose()
    await database.close()


async def test_nobody_waits_for_a_refresh_that_waits_for_another_callers_connections(
    bench: Bench,
) -> None:
    stored = await bench.grant("ada")
    async with AsyncExitStack() as stack:
        use_share_of_caller("loud")
        for _ in range(shares.OF_A_CALLER):
            await stack.enter_async_context(bench.database.connection())
        loud = asyncio.create_task(bench.refresh("loud", stored))
        await eventually(lambda: _waits(bench, "loud"))
        modest = await asyncio.create_task(bench.refresh("modest", stored))
        assert isinstance(modest, HeldToken)
        with pytest.raises(StorageBusy):
            await loud


async def _waits(bench: Bench, caller: str) -> bool:
    return bench.database._pool._shares.waiting(f"caller {caller}") > 0


async def test_a_refusal_that_could_not_be_noted_leaves_no_lease_behind(
    bench: Bench, database_url: str
) -> None:
    def refuse() -> TokenAnswer:
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
    taken = await bench.leases.take(
        stored.grant.id, " ".join(sorted(stored.grant.scopes)), lasting=timedelta(seconds=1)
    )
    assert isinstance(taken, Lease)


async def test_a_grant_for_which_google_had_no_turn_is_not_backed_off_from(bench: Bench) -> None:
    stored = await bench.grant("ada")
    good = bench.google.answer

    def busy() -> TokenAnswer:
        raise GoogleUnavailable("busy")

    bench.google.answer = busy
    refused = await bench.refresh("sync", stored)
    assert isinstance(refused, Problem)
    assert refused.code == "google_unavailable"
    bench.google.answer = good
    assert isinstance(await bench.refresh("sync", stored), HeldToken)


async def test_refreshes_that_wait_for_their_lease_are_no_probes(bench: Bench) -> None:
    """They have not asked Google, so it tells nothing that they take long."""
    breaker = bench.refresher._breaker
    for _ in range(5):
        breaker.failed(uuid4())
    assert breaker.is_open
    waiting = [await bench.grant(f"user-{number}") for number in range(3)]
    stored = await bench.grant("ada")
    async with AsyncExitStack() as stack:
        use_share_of_caller("loud")
        for _ in range(shares.OF_A_CALLER):
            await stack.enter_async_context(bench.database.connection())
        loud = [asyncio.create_task(bench.refresh("loud", each)) for each in waiting]
        await eventually(lambda: _all_wait(bench, "loud", len(loud)))
        modest = await asyncio.create_task(bench.refresh("modest", stored))
        assert isinstance(modest, HeldToken)
    await asyncio.gather(*loud, return_exceptions=True)


async def _all_wait(bench: Bench, caller: str, count: int) -> bool:
    return bench.database._pool._shares.waiting(f"caller {caller}") == count


async def test_who_joins_a_look_is_told_of_all_connections_in_use_and_of_no_outage(
    bench: Bench,
) -> None:
    looks = SharedLooks(bench.store)
    held = HeldTokens()
    async with AsyncExitStack() as stack:
        use_share_of_caller("loud")
        for _ in range(shares.OF_A_CALLER):
            await stack.enter_async_context(bench.database.connection())
        told = await asyncio.gather(
            *(looks.find("ada", held.watch("ada")) for _ in range(3)), return_exceptions=True
        )
    assert [type(error) for error in told] == [StorageBusy] * 3
