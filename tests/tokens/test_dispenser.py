"""The dispenser's decisions without a database: cache, grants, Google, and what a change means."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import cast

import pytest

from broker.callers.limits import CallerLimits
from broker.callers.refusals import AccessRefused, RefusalReason
from broker.crypto.sealing import UnsealingError
from broker.database.database import StorageBusy, StorageUnavailable
from broker.database.shares import use_share_of_caller
from broker.grants.model import AccessToken, Grant
from broker.grants.rows import SealedAccessToken, StoredGrant
from broker.grants.store import GrantStore
from broker.limits.concurrency import OverloadedError
from broker.secret import Secret
from broker.telemetry.metrics import Metrics
from broker.tokens import dispenser as module
from broker.tokens.cache.cached_token import CachedToken
from broker.tokens.cache.token_cache import TokenCache, Watch
from broker.tokens.dispenser import SharedGrantReads, TokenDispenser
from broker.tokens.pending_hints import PendingConsentHints
from broker.tokens.refresh.google_refresh import Requester
from broker.tokens.results import (
    READ_AGAIN,
    Denial,
    NotGranted,
    Outage,
    RefreshResult,
    TokenResult,
    Unavailable,
    google_unavailable,
)
from broker.tokens.token_request import TokenRequest
from tests.support.clock import ManualClock
from tests.support.scopes import CALENDAR, GMAIL_READONLY
from tests.tokens.samples import cached, caller, request, sealed_token, stored

HOUR = timedelta(hours=1)
CALLER = caller(scopes=(CALENDAR, GMAIL_READONLY))
TARGET = b"/v1/users/user-1/token"


@dataclass
class Grants:
    """The table of grants; every reading is counted and may fail or wait."""

    rows: list[StoredGrant] = field(default_factory=lambda: [stored()])
    reads: int = 0
    failures: list[Exception] = field(default_factory=list)
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)
    is_sealed_with_another_key: bool = False

    def __post_init__(self) -> None:
        self.may_answer.set()

    async def find(self, _user_id: str) -> Sequence[StoredGrant]:
        self.reads += 1
        found = list(self.rows)
        await self.may_answer.wait()
        if self.failures:
            raise self.failures.pop(0)
        return found

    def open_access_token(
        self, _grant: Grant, _scope_set: str, sealed: SealedAccessToken
    ) -> AccessToken:
        if self.is_sealed_with_another_key:
            raise UnsealingError
        return AccessToken(
            Secret("ya29.stored"), sealed.scopes, sealed.obtained_at, sealed.expires_at
        )


@dataclass
class Refresher:
    """Google, as the refresher reports it: one result after the other."""

    results: list[RefreshResult | Exception] = field(default_factory=list)
    asked: list[tuple[str, ...]] = field(default_factory=list)
    on_refresh: Callable[[], None] = lambda: None

    async def refresh(
        self, _stored: StoredGrant, scopes: tuple[str, ...], _requester: Requester
    ) -> RefreshResult:
        self.asked.append(scopes)
        self.on_refresh()
        result = self.results.pop(0)
        if isinstance(result, Exception):
            raise result
        return result


@dataclass
class Hints:
    """No pending consent helps."""

    async def refine(
        self, refusal: NotGranted, _grants: Sequence[StoredGrant], _request: TokenRequest
    ) -> NotGranted:
        return refusal


class CountingCache(TokenCache):
    """Notes each answer that is cached."""

    def __init__(self) -> None:
        super().__init__()
        self.targets: list[bytes | None] = []

    def put_answer(self, *args: object, target: bytes | None = None) -> None:
        self.targets.append(target)
        super().put_answer(*args, target=target)  # type: ignore[arg-type]


@dataclass
class Bench:
    """A dispenser with everything around it faked but the cache."""

    clock: ManualClock
    grants: Grants = field(default_factory=Grants)
    refresher: Refresher = field(default_factory=Refresher)
    cache: CountingCache = field(default_factory=CountingCache)

    def __post_init__(self) -> None:
        self.dispenser = TokenDispenser(
            cache=self.cache,
            grants=cast(GrantStore, self.grants),
            pending=cast(PendingConsentHints, Hints()),
            refresher=self.refresher,
            limits=CallerLimits(Metrics()),
            clock=self.clock,
        )

    async def dispense(self, asked: TokenRequest | None = None) -> TokenResult:
        return await self.dispenser.dispense(CALLER, asked or request(), target=TARGET)

    def new_token(self) -> CachedToken:
        return cached(self.clock, self.grants.rows[0].grant)

    def store(self, left: timedelta) -> None:
        """Have the table hold an access token that is valid for so long."""
        tokens = {CALENDAR: sealed_token(self.clock.now() + left)}
        self.grants.rows = [replace(self.grants.rows[0], sealed_access_tokens=tokens)]

    async def with_cached(self, left: timedelta) -> CachedToken:
        """Have the cache answer the usual request with a token that is valid for so long."""
        self.store(HOUR)
        token = await self.dispense()
        assert isinstance(token, CachedToken)
        self.clock.advance(HOUR - left)
        self.grants.rows = [replace(self.grants.rows[0], sealed_access_tokens={})]
        self.cache.targets.clear()
        self.grants.reads = 0
        return token


@pytest.fixture
async def bench(clock: ManualClock) -> Bench:
    return Bench(clock)


# ---- from the cache


@pytest.mark.parametrize(("min_ttl", "is_cached"), [(0, True), (30, True), (31, False)])
async def test_a_cached_token_answers_while_it_is_valid_for_min_ttl(
    bench: Bench, min_ttl: int, is_cached: bool
) -> None:
    token = await bench.with_cached(timedelta(seconds=30))

    answer = bench.dispenser.try_cached(CALLER, request(min_ttl=min_ttl))

    assert answer is (token if is_cached else None)


async def test_a_token_in_its_last_second_is_not_handed_out(bench: Bench) -> None:
    token = await bench.with_cached(timedelta(seconds=0.9))

    assert bench.dispenser.try_cached(CALLER, request(min_ttl=0)) is None
    assert bench.dispenser.is_expired(token)


async def test_the_policy_is_checked_before_the_cache(bench: Bench) -> None:
    narrow = caller(scopes=(CALENDAR,))

    answer = await bench.dispenser.dispense(narrow, request(scopes=(GMAIL_READONLY,)))

    assert answer == NotGranted(Denial.SCOPE_NOT_ALLOWED, (GMAIL_READONLY,))
    assert bench.grants.reads == 0


# ---- a cold request


async def test_a_stored_token_is_opened_without_a_call_to_google(bench: Bench) -> None:
    bench.store(HOUR)

    answer = await bench.dispense()

    assert isinstance(answer, CachedToken)
    assert (bench.grants.reads, bench.refresher.asked) == (1, [])


async def test_a_cold_request_caches_its_answer_once_and_with_its_target(bench: Bench) -> None:
    bench.store(HOUR)

    token = await bench.dispense()

    assert bench.cache.targets == [TARGET]
    answer = bench.cache.find_by_target(CALLER, TARGET)
    assert answer is not None
    assert answer.token is token


async def test_a_warm_request_with_another_target_caches_that_one(bench: Bench) -> None:
    token = await bench.with_cached(HOUR)

    other = TARGET + b"?min_ttl=60"
    assert await bench.dispenser.dispense(CALLER, request(), target=other) is token

    assert bench.cache.targets == [other]
    assert bench.grants.reads == 0


async def test_without_a_stored_token_google_is_called(bench: Bench) -> None:
    new = bench.new_token()
    bench.refresher.results = [new]

    assert await bench.dispense() is new
    assert bench.refresher.asked == [(CALENDAR,)]


async def test_a_stored_token_that_does_not_open_is_replaced(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.store(HOUR)
    bench.grants.is_sealed_with_another_key = True
    new = bench.new_token()
    bench.refresher.results = [new]

    assert await bench.dispense() is new
    assert [vars(record)["event"] for record in caplog.records] == ["access_token_unreadable"]


async def test_a_token_that_was_just_obtained_is_not_refreshed_for_a_longer_min_ttl(
    bench: Bench,
) -> None:
    bench.store(HOUR)

    assert isinstance(await bench.dispense(request(min_ttl=86_400)), CachedToken)
    assert bench.refresher.asked == []


async def test_scopes_that_google_left_out_are_refused(bench: Bench) -> None:
    bench.grants.rows = [stored(scopes=(CALENDAR, GMAIL_READONLY))]
    bench.refresher.results = [bench.new_token()]

    answer = await bench.dispense(request(scopes=(CALENDAR, GMAIL_READONLY)))

    assert answer == NotGranted(Denial.SCOPE_NOT_GRANTED, (GMAIL_READONLY,))


@pytest.mark.parametrize(
    "result",
    [
        NotGranted(Denial.REAUTHORIZATION_REQUIRED),
        google_unavailable(),
        Unavailable(Outage.CLIENT, HOUR),
    ],
)
async def test_without_a_valid_token_the_refreshers_refusal_is_the_answer(
    bench: Bench, result: NotGranted | Unavailable
) -> None:
    bench.refresher.results = [result]

    assert await bench.dispense() == result
    assert bench.cache.targets == []


# ---- an older token is still valid


@pytest.mark.parametrize(
    "result",
    [
        google_unavailable(),
        Unavailable(Outage.STORAGE, HOUR),
        Unavailable(Outage.CLIENT, HOUR),
        StorageUnavailable("away"),
        StorageBusy("busy"),
        OverloadedError(),
        TimeoutError(),
    ],
    ids=repr,
)
async def test_an_older_token_is_served_through_trouble(
    bench: Bench, result: Unavailable | Exception
) -> None:
    token = await bench.with_cached(timedelta(seconds=30))
    bench.refresher.results = [result]

    assert await bench.dispense() is token


async def test_an_older_token_is_not_served_once_google_refuses_the_grant(bench: Bench) -> None:
    await bench.with_cached(timedelta(seconds=30))
    refusal = NotGranted(Denial.REAUTHORIZATION_REQUIRED)
    bench.refresher.results = [refusal]

    assert await bench.dispense() == refusal


async def test_an_older_token_bounds_the_wait_for_google(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PATIENCE", timedelta(seconds=0.01))
    token = await bench.with_cached(timedelta(seconds=30))

    async def hang(*_: object) -> RefreshResult:
        await asyncio.sleep(60)
        raise AssertionError

    monkeypatch.setattr(bench.refresher, "refresh", hang)

    assert await asyncio.wait_for(bench.dispense(), 5) is token


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (StorageUnavailable("away"), Unavailable(Outage.STORAGE, timedelta(seconds=2))),
        (StorageBusy("busy"), Unavailable(Outage.STORAGE, timedelta(seconds=2))),
    ],
)
async def test_while_grants_cannot_be_read_only_a_valid_cached_token_is_served(
    bench: Bench, failure: Exception, expected: Unavailable
) -> None:
    bench.grants.failures = [failure]
    assert await bench.dispense() == expected

    token = await bench.with_cached(timedelta(seconds=30))
    bench.grants.failures = [failure]
    assert await bench.dispense() is token


async def test_over_the_concurrency_limit_only_a_valid_cached_token_is_served(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def overloaded(*_: object) -> None:
        raise OverloadedError

    token = await bench.with_cached(timedelta(seconds=30))
    monkeypatch.setattr(
        bench.dispenser._limits.database_requests, "try_acquire", lambda _key: False
    )
    monkeypatch.setattr(bench.dispenser._limits.database_requests, "acquire", overloaded)
    assert await bench.dispense() is token

    refused = await bench.dispense(request("user-2"))
    assert isinstance(refused, AccessRefused)
    assert refused.reason is RefusalReason.CONCURRENCY_LIMIT


# ---- the grants change meanwhile


async def test_after_a_change_during_the_refresh_the_grants_are_read_again(bench: Bench) -> None:
    new = bench.new_token()
    bench.refresher.results = [READ_AGAIN, new]

    assert await bench.dispense() is new
    assert bench.grants.reads == 2


async def test_a_token_whose_grant_was_revoked_meanwhile_is_not_handed_out(bench: Bench) -> None:
    def revoke() -> None:
        bench.grants.rows = []
        bench.cache.invalidate("user-1")

    bench.refresher.results = [bench.new_token()]
    bench.refresher.on_refresh = revoke

    assert await bench.dispense() == NotGranted(Denial.GRANT_NOT_FOUND)
    assert (bench.grants.reads, bench.cache.targets) == (2, [])


async def test_grants_that_keep_changing_are_given_up_after_a_while(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_TIMEOUT", timedelta(seconds=0.02))
    bench.refresher.results = [READ_AGAIN] * 1_000_000

    answer = await bench.dispense()

    assert isinstance(answer, Unavailable)
    assert answer.reason is Outage.GOOGLE


async def test_no_watch_is_left_behind(bench: Bench) -> None:
    bench.refresher.results = [READ_AGAIN, google_unavailable()]
    await bench.dispense()
    bench.grants.failures = [StorageUnavailable("away")]
    await bench.dispense()

    assert bench.cache._watches == {}


# ---- shared reads


async def read(reads: SharedGrantReads, watch: Watch, name: str) -> Sequence[StoredGrant]:
    use_share_of_caller(name)
    return await reads.read("user-1", watch)


@pytest.fixture
async def grants() -> Grants:
    grants = Grants()
    grants.may_answer.clear()
    return grants


@pytest.fixture
async def reads(grants: Grants) -> SharedGrantReads:
    return SharedGrantReads(cast(GrantStore, grants))


async def test_requests_of_one_caller_share_a_read(reads: SharedGrantReads, grants: Grants) -> None:
    waiting = [asyncio.create_task(read(reads, Watch(), "one")) for _ in range(20)]
    await asyncio.sleep(0)
    grants.may_answer.set()

    assert list(await asyncio.gather(*waiting)) == [grants.rows] * 20
    assert grants.reads == 1
    assert reads._watches == {}


async def test_callers_do_not_share_a_read(reads: SharedGrantReads, grants: Grants) -> None:
    waiting = [asyncio.create_task(read(reads, Watch(), name)) for name in ("one", "other")]
    await asyncio.sleep(0)
    grants.may_answer.set()
    await asyncio.gather(*waiting)

    assert grants.reads == 2


async def test_a_read_that_may_have_missed_a_change_is_not_joined(
    reads: SharedGrantReads, grants: Grants
) -> None:
    watch = Watch()
    early = asyncio.create_task(read(reads, watch, "one"))
    await asyncio.sleep(0)
    watch.changed = True
    before, grants.rows = grants.rows, [stored(version=2)]

    late = [asyncio.create_task(read(reads, Watch(), "one")) for _ in range(2)]
    await asyncio.sleep(0)
    grants.may_answer.set()

    assert await early == before
    assert list(await asyncio.gather(*late)) == [grants.rows] * 2
    assert grants.reads == 2


async def test_when_the_request_that_reads_is_cancelled_another_one_reads(
    reads: SharedGrantReads, grants: Grants
) -> None:
    first, *others = [asyncio.create_task(read(reads, Watch(), "one")) for _ in range(5)]
    await asyncio.sleep(0)
    first.cancel()
    with suppress(asyncio.CancelledError):
        await first
    for _ in range(3):
        await asyncio.sleep(0)
    grants.may_answer.set()

    assert list(await asyncio.gather(*others)) == [grants.rows] * 4
    assert grants.reads == 2


async def test_every_request_gets_the_failure_of_the_shared_read(
    reads: SharedGrantReads, grants: Grants
) -> None:
    grants.failures = [StorageBusy("busy")]
    waiting = [asyncio.create_task(read(reads, Watch(), "one")) for _ in range(3)]
    await asyncio.sleep(0)
    grants.may_answer.set()

    errors = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(error) for error in errors] == [StorageBusy] * 3
