"""A cached fetch: how long values and failures stay in use, and who waits for a fetch."""

import asyncio
from collections.abc import Callable
from datetime import timedelta

import pytest

from broker.outbound.cached_fetch import (
    MAX_AGE,
    RETRY_STALE,
    RETRY_WITHOUT,
    CachedFetch,
    ServerUnavailable,
)
from tests.support.clock import ManualClock

MOMENT = timedelta(milliseconds=1)


class _Unavailable(ServerUnavailable):
    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class _Server:
    """Returns 1, 2, 3 …, or fails while `failure` is set."""

    def __init__(self) -> None:
        self.fetches = 0
        self.failure: str | None = None
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def fetch(self) -> int:
        self.fetches += 1
        number = self.fetches
        await self.go_on.wait()
        if self.failure is not None:
            raise _Unavailable(self.failure)
        return number


class _Cached(CachedFetch[int]):
    """Keeps the reasons that it reports."""

    def __init__(self, server: _Server, clock: ManualClock) -> None:
        self.reported: list[str | None] = []
        super().__init__(server.fetch, clock, on_failure=self._report)

    def _report(self, failure: ServerUnavailable | None) -> None:
        self.reported.append(failure.reason if failure else None)


@pytest.fixture
async def server() -> _Server:
    return _Server()


@pytest.fixture
def cached(server: _Server, clock: ManualClock) -> _Cached:
    return _Cached(server, clock)


@pytest.mark.parametrize(
    ("age", "value"),
    [(timedelta(0), 1), (MAX_AGE - MOMENT, 1), (MAX_AGE, 2), (10 * MAX_AGE, 2)],
)
async def test_a_value_is_fetched_again_at_its_greatest_age(
    cached: _Cached, clock: ManualClock, age: timedelta, value: int
) -> None:
    await cached.get()
    clock.advance(age)
    assert await cached.get() == value


@pytest.mark.parametrize(
    ("pause", "fetches"),
    [(timedelta(0), 1), (RETRY_WITHOUT - MOMENT, 1), (RETRY_WITHOUT, 2), (-RETRY_WITHOUT, 2)],
)
async def test_a_failure_without_a_value_is_cached(
    server: _Server, cached: _Cached, clock: ManualClock, pause: timedelta, fetches: int
) -> None:
    server.failure = "connect"
    for wait in (pause, timedelta(0)):
        with pytest.raises(_Unavailable, match="connect"):
            await cached.get()
        clock.advance(wait)
    assert server.fetches == fetches


@pytest.mark.parametrize(
    ("pause", "fetches"),
    [(timedelta(0), 2), (RETRY_STALE - MOMENT, 2), (RETRY_STALE, 3)],
)
async def test_a_stale_value_stays_in_use_after_a_failure(
    server: _Server, cached: _Cached, clock: ManualClock, pause: timedelta, fetches: int
) -> None:
    await cached.get()
    server.failure = "timeout"
    clock.advance(MAX_AGE)
    assert await cached.get() == 1
    clock.advance(pause)
    assert await cached.get() == 1
    assert server.fetches == fetches


async def test_a_value_of_a_given_age_is_never_stale(
    server: _Server, cached: _Cached, clock: ManualClock
) -> None:
    second = timedelta(seconds=1)
    assert await cached.get_young(second, retry_after=second) == 1
    clock.advance(second)
    server.failure = "timeout"
    with pytest.raises(_Unavailable):
        await cached.get_young(second, retry_after=second)
    assert await cached.get() == 1


async def test_concurrent_callers_share_one_fetch(server: _Server, cached: _Cached) -> None:
    server.go_on.clear()
    callers = [asyncio.create_task(cached.get()) for _ in range(5)]
    await asyncio.sleep(0)
    assert cached.is_fetching
    server.go_on.set()
    assert await asyncio.gather(*callers) == [1] * 5
    assert not cached.is_fetching


async def test_during_a_fetch_other_callers_get_the_stale_value(
    server: _Server, cached: _Cached, clock: ManualClock
) -> None:
    await cached.get()
    clock.advance(MAX_AGE)
    server.go_on.clear()
    fetching = asyncio.create_task(cached.get())
    await asyncio.sleep(0)
    assert await cached.get() == 1
    server.go_on.set()
    assert await fetching == 2


async def test_a_failure_is_reported_when_it_changes(server: _Server, cached: _Cached) -> None:
    async def try_with(failure: str | None) -> None:
        server.failure = failure
        await asyncio.gather(cached.fetch(), return_exceptions=True)

    for failure in (None, "timeout", "timeout", "connect", None, None):
        await try_with(failure)
    assert cached.reported == ["timeout", "connect", None]
    assert cached.failure is None


async def test_closing_cancels_the_running_fetch(server: _Server, cached: _Cached) -> None:
    server.go_on.clear()
    caller = asyncio.create_task(cached.get())
    await asyncio.sleep(0)
    await cached.aclose()
    with pytest.raises(asyncio.CancelledError):
        await caller


async def test_a_defect_is_not_cached(clock: ManualClock) -> None:
    async def fetch() -> int:
        raise ZeroDivisionError

    ignore: Callable[[object], None] = lambda _failure: None  # noqa: E731
    cached = CachedFetch(fetch, clock, on_failure=ignore)
    with pytest.raises(ZeroDivisionError):
        await cached.get()
    assert cached.failure is None
