"""When tokens are refreshed proactively, and when they are left to expire."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import cast

import pytest

from broker.database.database import StorageUnavailable
from broker.grants.model import AccessToken, Grant, GrantStatus
from broker.grants.rows import SealedAccessToken, StoredGrant
from broker.grants.store import GrantStore
from broker.secret import Secret
from broker.tokens.cache.cached_token import CachedToken
from broker.tokens.cache.token_cache import TokenCache, Watch
from broker.tokens.refresh import proactive_refresh as module
from broker.tokens.refresh.google_refresh import Requester
from broker.tokens.refresh.proactive_refresh import ProactiveRefresh, RefreshSchedule
from broker.tokens.refresh.refresher import Refresher
from broker.tokens.results import READ_AGAIN, RefreshResult, google_unavailable
from tests.support.clock import ManualClock
from tests.support.scopes import CALENDAR
from tests.tokens.samples import cached, sealed_token, stored

MINUTE = timedelta(minutes=1)
HOUR = 60 * MINUTE


@dataclass
class Grants:
    """The table of grants."""

    rows: list[StoredGrant] = field(default_factory=lambda: [stored()])
    failure: Exception | None = None

    async def find(self, _user_id: str) -> Sequence[StoredGrant]:
        if self.failure is not None:
            raise self.failure
        return self.rows

    def open_access_token(
        self, _grant: Grant, _scope_set: str, sealed: SealedAccessToken
    ) -> AccessToken:
        return AccessToken(Secret("stored"), sealed.scopes, sealed.obtained_at, sealed.expires_at)


@dataclass
class FakeRefresher:
    """Google, as the refresher reports it."""

    result: RefreshResult | None = None
    asked: list[tuple[tuple[str, ...], Requester]] = field(default_factory=list)
    proceed: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.proceed.set()

    async def refresh(
        self, _stored: StoredGrant, scopes: tuple[str, ...], requester: Requester
    ) -> RefreshResult:
        self.asked.append((scopes, requester))
        await self.proceed.wait()
        return self.result or google_unavailable()


@dataclass
class Bench:
    clock: ManualClock
    grants: Grants = field(default_factory=Grants)
    refresher: FakeRefresher = field(default_factory=FakeRefresher)

    def __post_init__(self) -> None:
        self.schedule = RefreshSchedule(self.clock)
        self.cache = TokenCache(on_put=self.schedule.add, on_removed=self.schedule.remove)
        self.job = ProactiveRefresh(
            schedule=self.schedule,
            cache=self.cache,
            grants=cast(GrantStore, self.grants),
            refresher=cast(Refresher, self.refresher),
            clock=self.clock,
        )

    def put(self, token: CachedToken, *, is_used: bool = True) -> CachedToken:
        token.used_again = is_used
        self.cache.put(token.user_id, CALENDAR, token, Watch())
        return token

    def token(self, left: timedelta = HOUR) -> CachedToken:
        return cached(self.clock, self.grants.rows[0].grant, left=left, age=HOUR - left)

    async def run(self) -> None:
        await self.job.run()
        for _ in range(5):
            await asyncio.sleep(0)


@pytest.fixture
async def bench(clock: ManualClock) -> Bench:
    return Bench(clock)


# ---- the schedule


@pytest.mark.parametrize(
    ("left", "longest_min_ttl", "earliest", "latest"),
    [
        (HOUR, 0, 39 * MINUTE, 48.3 * MINUTE),
        (HOUR, 60, 39 * MINUTE, 48.3 * MINUTE),
        # Its callers need it to be valid for half an hour: it is replaced before.
        (HOUR, 1800, 19.5 * MINUTE, 24.3 * MINUTE),
        # No `min_ttl` makes a token be replaced before a fifth of its life.
        (HOUR, 86_400, 12 * MINUTE, 12.3 * MINUTE),
    ],
)
def test_a_token_is_due_a_random_time_before_it_expires(
    clock: ManualClock,
    left: timedelta,
    longest_min_ttl: int,
    earliest: timedelta,
    latest: timedelta,
) -> None:
    schedule = RefreshSchedule(clock)
    began = clock.epoch()
    tokens = [cached(clock, left=left) for _ in range(200)]
    for token in tokens:
        token.longest_min_ttl = longest_min_ttl
        schedule.add(token)

    after = [(token.due or 0) - began for token in tokens]
    assert earliest.total_seconds() <= min(after) <= max(after) <= latest.total_seconds()


@pytest.mark.parametrize(
    ("seconds", "step"), [(1, 0.2), (51.2, 0.2), (60, 0.125), (3600, 8.0), (86_400, 256.0)]
)
def test_due_times_are_rounded_up_to_shared_buckets(
    clock: ManualClock, seconds: float, step: float
) -> None:
    schedule = RefreshSchedule(clock)
    token = cached(clock)
    schedule.put(clock.epoch() + seconds, token)

    assert token.due is not None
    assert 0 <= token.due - (clock.epoch() + seconds) < step + 1e-3
    assert (token.due / step) % 1 == pytest.approx(0, abs=1e-3) or step == 0.2


def test_tokens_that_are_due_together_share_one_float(clock: ManualClock) -> None:
    schedule = RefreshSchedule(clock)
    first, second = cached(clock), cached(clock)
    for token in (first, second):
        schedule.put(clock.epoch() + 3600.5, token)

    assert first.due is second.due


def test_a_due_token_is_popped_once_and_in_order(clock: ManualClock) -> None:
    schedule = RefreshSchedule(clock)
    late, early, removed = cached(clock), cached(clock), cached(clock)
    for seconds, token in ((20, late), (10, early), (10, removed)):
        schedule.put(clock.epoch() + seconds, token)
    schedule.remove(removed)
    schedule.remove(removed)
    assert len(schedule) == 2

    assert schedule.pop_due(clock.epoch() + 9) is None
    assert schedule.pop_due(clock.epoch() + 21) is early
    assert schedule.pop_due(clock.epoch() + 21) is late
    assert schedule.pop_due(clock.epoch() + 21) is None
    assert (early.due, late.due, removed.due) == (None, None, None)


def test_a_cleared_schedule_has_no_token(clock: ManualClock) -> None:
    schedule = RefreshSchedule(clock)
    schedule.add(cached(clock))
    schedule.clear()

    assert len(schedule) == 0
    assert schedule.pop_due(clock.epoch() + 7200) is None


# ---- the job


async def test_a_token_in_use_is_replaced_when_it_is_due(bench: Bench) -> None:
    old = bench.put(bench.token())
    bench.clock.advance(49 * MINUTE)
    bench.refresher.result = bench.token()

    await bench.run()

    assert bench.refresher.asked == [((CALENDAR,), Requester())]
    assert old.due is None


async def test_a_token_that_is_not_due_is_left_alone(bench: Bench) -> None:
    bench.put(bench.token())
    bench.clock.advance(38 * MINUTE)

    await bench.run()

    assert bench.refresher.asked == []
    assert len(bench.schedule) == 1


async def test_an_idle_token_is_checked_again(bench: Bench) -> None:
    token = bench.put(bench.token(), is_used=False)
    bench.clock.advance(49 * MINUTE)
    before = token.due

    await bench.run()

    assert bench.refresher.asked == []
    assert token.due is not None
    assert token.due != before


async def test_an_expired_token_is_dropped_from_the_schedule(bench: Bench) -> None:
    bench.put(bench.token())
    bench.clock.advance(2 * HOUR)

    await bench.run()

    assert bench.refresher.asked == []
    assert len(bench.schedule) == 0


async def test_a_newer_stored_token_is_taken_without_a_call_to_google(bench: Bench) -> None:
    old = bench.put(bench.token())
    bench.clock.advance(49 * MINUTE)
    tokens = {CALENDAR: sealed_token(bench.clock.now() + HOUR)}
    bench.grants.rows = [replace(bench.grants.rows[0], sealed_access_tokens=tokens)]

    await bench.run()

    assert bench.refresher.asked == []
    assert (old.alive, len(bench.cache), len(bench.schedule)) == (False, 1, 1)


@pytest.mark.parametrize("result", [google_unavailable(), READ_AGAIN], ids=["outage", "change"])
async def test_a_refresh_without_a_token_is_tried_again_soon(
    bench: Bench, result: RefreshResult
) -> None:
    token = bench.put(bench.token())
    bench.clock.advance(49 * MINUTE)
    bench.refresher.result = result

    await bench.run()

    assert token.due is not None
    assert 0.8 <= token.due - bench.clock.epoch() <= 1.8 + 0.2


async def test_while_postgresql_is_unavailable_the_refresh_is_tried_again_soon(
    bench: Bench,
) -> None:
    token = bench.put(bench.token())
    bench.clock.advance(49 * MINUTE)
    bench.grants.failure = StorageUnavailable("away")

    await bench.run()

    assert token.due is not None


async def test_a_defect_is_logged_and_ends_only_this_refresh(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    token = bench.put(bench.token())
    bench.clock.advance(49 * MINUTE)
    bench.grants.failure = RuntimeError("a defect")

    await bench.run()

    assert token.due is None
    assert [vars(record)["event"] for record in caplog.records] == ["proactive_refresh_failed"]


@pytest.mark.parametrize(
    "rows",
    [[], [stored(status=GrantStatus.REAUTHORIZATION_REQUIRED)], [stored("another")]],
    ids=["none", "dead", "another"],
)
async def test_a_token_whose_grant_is_gone_is_not_refreshed(
    bench: Bench, rows: list[StoredGrant]
) -> None:
    token = bench.put(bench.token())
    bench.clock.advance(49 * MINUTE)
    bench.grants.rows = rows

    await bench.run()

    assert bench.refresher.asked == []
    assert token.due is None


async def test_proactive_refreshes_are_bounded_in_number(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AT_ONCE", 2)
    bench.refresher.proceed.clear()
    for number in range(3):
        bench.grants.rows.append(stored(f"user-{number}"))
        of = bench.grants.rows[-1].grant
        bench.put(cached(bench.clock, of))
    bench.clock.advance(49 * MINUTE)

    await bench.run()
    assert len(bench.refresher.asked) == 2

    await bench.job.aclose()
