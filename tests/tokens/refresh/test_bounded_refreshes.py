"""Of the refreshes at a time, neither a caller nor a grant takes the share of others."""

import asyncio
from dataclasses import dataclass, field

import pytest

from broker.callers import limits
from broker.grants.rows import StoredGrant
from broker.limits.concurrency import ConcurrencyLimit, OverloadedError
from broker.tokens.refresh.google_refresh import Requester
from broker.tokens.refresh.refresher import BoundedRefreshes
from broker.tokens.results import RefreshResult, google_unavailable
from tests.tokens.samples import stored

AT_ONCE = 10


@dataclass
class HangingGoogle:
    """Refreshes that end when the test says so."""

    asked: list[tuple[str | None, str]] = field(default_factory=list)
    proceed: asyncio.Event = field(default_factory=asyncio.Event)

    async def refresh(
        self, grant: StoredGrant, _scopes: tuple[str, ...], requester: Requester
    ) -> RefreshResult:
        self.asked.append((requester.caller, grant.grant.user_id))
        await self.proceed.wait()
        return google_unavailable()

    async def settle(self) -> None:
        """Return when all refreshes that may start have started."""
        for _ in range(20):
            await asyncio.sleep(0)


@pytest.fixture
def google() -> HangingGoogle:
    return HangingGoogle()


@pytest.fixture
def refreshes(google: HangingGoogle) -> BoundedRefreshes:
    return BoundedRefreshes(google, ConcurrencyLimit(limit=AT_ONCE, queue=100, timeout_seconds=30))


async def test_requests_for_the_same_refresh_take_one_place(
    refreshes: BoundedRefreshes, google: HangingGoogle
) -> None:
    ada = stored("ada")
    asking = [
        asyncio.create_task(refreshes.refresh(ada, ("a",), Requester("sync"))) for _ in range(100)
    ]
    await google.settle()
    assert google.asked == [("sync", "ada")]
    google.proceed.set()
    await asyncio.gather(*asking)


async def test_one_grant_takes_a_few_of_its_callers_places(
    refreshes: BoundedRefreshes, google: HangingGoogle
) -> None:
    slow, other = stored("slow"), stored("other")
    asking = [
        asyncio.create_task(refreshes.refresh(slow, (f"scope-{number}",), Requester("sync")))
        for number in range(50)
    ]
    asking.append(asyncio.create_task(refreshes.refresh(other, ("a",), Requester("sync"))))
    asking.append(asyncio.create_task(refreshes.refresh(slow, ("a",), Requester("another"))))
    await google.settle()
    assert google.asked.count(("sync", "slow")) == limits.CONCURRENT_REFRESHES_PER_GRANT
    assert ("sync", "other") in google.asked
    assert ("another", "slow") in google.asked
    google.proceed.set()
    await asyncio.gather(*asking)
    assert len(google.asked) == len(asking)


async def test_a_caller_takes_its_own_places_only(
    refreshes: BoundedRefreshes, google: HangingGoogle
) -> None:
    asking = [
        asyncio.create_task(refreshes.refresh(stored(f"user-{n}"), ("a",), Requester("loud")))
        for n in range(50)
    ]
    asking.append(asyncio.create_task(refreshes.refresh(stored("ada"), ("a",), Requester("sync"))))
    await google.settle()
    assert len([caller for caller, _ in google.asked if caller == "loud"]) == AT_ONCE
    assert ("sync", "ada") in google.asked
    google.proceed.set()
    await asyncio.gather(*asking)


async def test_a_cancelled_request_leaves_the_refresh_and_its_place_as_they_are(
    refreshes: BoundedRefreshes, google: HangingGoogle
) -> None:
    ada = stored("ada")
    cancelled, stays = (
        asyncio.create_task(refreshes.refresh(ada, ("a",), Requester("sync"))) for _ in range(2)
    )
    await google.settle()
    cancelled.cancel()
    await google.settle()
    google.proceed.set()
    assert await stays
    assert len(google.asked) == 1


async def test_a_full_queue_rejects(google: HangingGoogle) -> None:
    refreshes = BoundedRefreshes(google, ConcurrencyLimit(limit=1, queue=0, timeout_seconds=30))
    first = asyncio.create_task(refreshes.refresh(stored("ada"), ("a",), Requester("sync")))
    await google.settle()
    with pytest.raises(OverloadedError):
        await refreshes.refresh(stored("grace"), ("a",), Requester("sync"))
    google.proceed.set()
    await first
