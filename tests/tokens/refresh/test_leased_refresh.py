"""A refresh by lease, without a database: who refreshes, who waits, and what is released."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import cast

import pytest

from broker.database.database import StorageBusy, StorageUnavailable
from broker.google.oauth import GoogleOAuth
from broker.grants.refresh_lease import Lease, LeaseHeld, RefreshLeases
from broker.grants.rows import StoredGrant
from broker.grants.store import GrantStore
from broker.secret_sources.current_client import CurrentClient
from broker.tokens.cache.token_cache import TokenCache
from broker.tokens.refresh.google_calls import RefreshCalls
from broker.tokens.refresh.google_refresh import GoogleRefresh, Refresh, Requester
from broker.tokens.refresh.lease_waits import ReplicaLeases, Wakeups
from broker.tokens.refresh.refresher import Refresher
from broker.tokens.results import (
    READ_AGAIN,
    Denial,
    NotGranted,
    Outage,
    RefreshResult,
    Unavailable,
    google_unavailable,
)
from tests.support.clock import ManualClock
from tests.support.scopes import CALENDAR
from tests.tokens.refresh import fakes
from tests.tokens.samples import START, cached, grant, sealed_token

SECOND = timedelta(seconds=1)
NO_LEASE = None
GRANT = grant()
STORED = StoredGrant(GRANT, None, {})


@dataclass
class GoogleResult:
    """The result of a refresh at Google, in place of `GoogleRefresh`."""

    result: RefreshResult | Exception = field(default_factory=google_unavailable)
    leases: list[Lease | None] = field(default_factory=list)
    on_run: Callable[[], None] = lambda: None

    async def run(self, _refresh: Refresh, lease: Lease | None) -> RefreshResult:
        self.leases.append(lease)
        self.on_run()
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


class Bench:
    def __init__(self, clock: ManualClock) -> None:
        self.grants, self.leases = fakes.Grants(rows=[STORED]), fakes.Leases()
        self.google, self.cache = GoogleResult(), TokenCache()
        self.calls = RefreshCalls(
            google=cast(GoogleOAuth, fakes.Google()),
            client=cast(CurrentClient, fakes.Client()),
            clock=clock,
        )
        self.refresher = Refresher(
            grants=cast(GrantStore, self.grants),
            cache=self.cache,
            leases=ReplicaLeases(cast(RefreshLeases, self.leases), Wakeups()),
            calls=self.calls,
            google=cast(GoogleRefresh, self.google),
        )

    async def refresh(self) -> RefreshResult:
        return await self.refresher.refresh(STORED, (CALENDAR,), Requester("sync"))


@pytest.fixture
async def bench(clock: ManualClock) -> Bench:
    return Bench(clock)


async def test_the_holder_of_the_lease_refreshes_and_caches_the_token(
    bench: Bench, clock: ManualClock
) -> None:
    token = cached(clock, GRANT)
    bench.google.result = token

    assert await bench.refresh() is token
    assert bench.google.leases == [Lease(GRANT.id, CALENDAR, 1)]
    assert bench.cache.find_token("user-1", GRANT, CALENDAR) is token
    assert bench.refresher.in_flight == 0


@pytest.mark.parametrize(
    ("problem", "expected"),
    [
        (None, READ_AGAIN),
        ("google_unavailable", Unavailable(Outage.GOOGLE, 0.01 * SECOND)),
        ("scope_not_granted", NotGranted(Denial.SCOPE_NOT_GRANTED, (CALENDAR,))),
    ],
)
async def test_without_the_lease_it_waits_or_answers_as_the_last_holder_did(
    bench: Bench, problem: str | None, expected: RefreshResult
) -> None:
    bench.leases.acquired = [LeaseHeld(0.01 * SECOND, problem)]

    assert await bench.refresh() == expected
    assert (bench.google.leases, bench.leases.released) == ([], [])


async def test_while_postgresql_is_unavailable_it_refreshes_without_a_lease(
    bench: Bench, clock: ManualClock
) -> None:
    bench.leases.acquired = [StorageUnavailable("away")]
    token = cached(clock, GRANT)
    bench.google.result = token

    assert await bench.refresh() is token
    assert bench.google.leases == [NO_LEASE]


async def test_while_all_connections_are_in_use_it_does_not_refresh(bench: Bench) -> None:
    bench.leases.acquired = [StorageBusy("busy")]

    with pytest.raises(StorageBusy):
        await bench.refresh()
    assert bench.google.leases == []


@pytest.mark.parametrize(
    "change",
    [
        lambda stored: [],
        lambda stored: [replace(stored, grant=replace(stored.grant, version=2))],
        lambda stored: [replace(stored, grant=replace(stored.grant, refresh_token_version=2))],
        lambda stored: [
            replace(stored, sealed_access_tokens={CALENDAR: sealed_token(START + 3600 * SECOND)})
        ],
    ],
    ids=["revoked", "changed", "rotated", "refreshed"],
)
async def test_a_grant_that_changed_before_the_lease_is_not_refreshed(
    bench: Bench, change: Callable[[StoredGrant], list[StoredGrant]]
) -> None:
    bench.grants.rows = change(STORED)

    assert await bench.refresh() is READ_AGAIN
    assert bench.google.leases == []
    assert bench.leases.released == [(timedelta(0), None)]


async def test_a_failed_reading_releases_the_lease(bench: Bench) -> None:
    bench.grants.failure = StorageUnavailable("away")

    with pytest.raises(StorageUnavailable):
        await bench.refresh()
    assert bench.leases.released == [(timedelta(0), None)]


@pytest.mark.parametrize(
    ("result", "released"),
    [
        (READ_AGAIN, (timedelta(0), None)),
        (google_unavailable(), (timedelta(0), "google_unavailable")),
        (NotGranted(Denial.SCOPE_NOT_GRANTED), (timedelta(0), "scope_not_granted")),
        (NotGranted(Denial.REAUTHORIZATION_REQUIRED), (timedelta(0), None)),
    ],
)
async def test_a_refresh_without_a_token_releases_the_lease(
    bench: Bench, result: RefreshResult, released: tuple[timedelta, str | None]
) -> None:
    bench.google.result = result

    assert await bench.refresh() == result
    assert bench.leases.released == [released]


async def test_a_refusal_is_stored_with_the_pause_of_this_replica(bench: Bench) -> None:
    def back_off() -> None:
        bench.google.result = bench.calls.back_off(
            GRANT.id, google_unavailable(), retry_after=30 * SECOND
        )

    bench.google.on_run = back_off

    assert await bench.refresh() == google_unavailable(retry_after=30 * SECOND)
    assert bench.leases.released == [(30 * SECOND, "google_unavailable")]
    # The next request does not even acquire the lease.
    bench.leases.acquired = [RuntimeError("acquired")]
    assert await bench.refresh() == google_unavailable(retry_after=30 * SECOND)


async def test_an_outage_after_googles_answer_releases_the_lease(bench: Bench) -> None:
    bench.google.result = StorageUnavailable("away")

    with pytest.raises(StorageUnavailable):
        await bench.refresh()
    assert bench.leases.released == [(timedelta(0), None)]


async def test_a_token_whose_grant_changed_during_the_refresh_is_not_cached(
    bench: Bench, clock: ManualClock
) -> None:
    token = cached(clock, GRANT)

    bench.google.result = token
    bench.google.on_run = lambda: bench.cache.invalidate("user-1")

    assert await bench.refresh() is token
    assert len(bench.cache) == 0
