"""Of the refreshes at a time, neither a caller nor a grant takes what others need."""

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from broker.callers import limits
from broker.grants.model import Grant, GrantStatus
from broker.grants.rows import StoredGrant
from broker.limits.concurrency import OverloadedError, Turns
from broker.tokens.refresh.concurrency import RefreshesByShare
from broker.tokens.refresh.refresher import Behalf, RefreshResult
from broker.web.problems import google_unavailable

AT_ONCE = 10


@dataclass
class HangingGoogle:
    """Refreshes that end when the test says so."""

    asked: list[tuple[str | None, str]] = field(default_factory=list)
    proceed: asyncio.Event = field(default_factory=asyncio.Event)

    async def refresh(
        self, stored: StoredGrant, scopes: tuple[str, ...], behalf: Behalf
    ) -> RefreshResult:
        self.asked.append((behalf.caller, stored.grant.user_id))
        await self.proceed.wait()
        return google_unavailable(1)

    async def settle(self) -> None:
        """Return when all who may ask have asked."""
        for _ in range(20):
            await asyncio.sleep(0)


@pytest.fixture
def google() -> HangingGoogle:
    return HangingGoogle()


@pytest.fixture
def refreshes(google: HangingGoogle) -> RefreshesByShare:
    return RefreshesByShare(google, Turns(at_once=AT_ONCE, waiting=100, patience_seconds=30))


def _grant(user_id: str) -> StoredGrant:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    grant = Grant(
        id=uuid4(),
        user_id=user_id,
        google_sub=user_id,
        email=f"{user_id}@example.com",
        client_id="client",
        scopes=("a",),
        status=GrantStatus.ACTIVE,
        reason=None,
        is_default=True,
        version=1,
        connected_at=now,
        updated_at=now,
        last_used_at=None,
        consented_at=now,
    )
    return StoredGrant(grant, None, {})


async def test_many_requests_for_one_refresh_take_one_turn(
    refreshes: RefreshesByShare, google: HangingGoogle
) -> None:
    stored = _grant("ada")
    asking = [
        asyncio.create_task(refreshes.refresh(stored, ("a",), Behalf("sync"))) for _ in range(100)
    ]
    await google.settle()
    assert google.asked == [("sync", "ada")]
    google.proceed.set()
    await asyncio.gather(*asking)


async def test_one_grant_takes_a_few_of_its_callers_turns(
    refreshes: RefreshesByShare, google: HangingGoogle
) -> None:
    slow, other = _grant("slow"), _grant("other")
    asking = [
        asyncio.create_task(refreshes.refresh(slow, (f"scope-{number}",), Behalf("sync")))
        for number in range(50)
    ]
    asking.append(asyncio.create_task(refreshes.refresh(other, ("a",), Behalf("sync"))))
    asking.append(asyncio.create_task(refreshes.refresh(slow, ("a",), Behalf("another"))))
    await google.settle()
    assert google.asked.count(("sync", "slow")) == limits.REFRESHES_OF_A_GRANT_AT_ONCE
    assert ("sync", "other") in google.asked
    assert ("another", "slow") in google.asked
    google.proceed.set()
    await asyncio.gather(*asking)
    assert len(google.asked) == len(asking)


async def test_one_caller_takes_its_own_turns_only(
    refreshes: RefreshesByShare, google: HangingGoogle
) -> None:
    asking = [
        asyncio.create_task(refreshes.refresh(_grant(f"user-{n}"), ("a",), Behalf("loud")))
        for n in range(50)
    ]
    asking.append(asyncio.create_task(refreshes.refresh(_grant("ada"), ("a",), Behalf("sync"))))
    await google.settle()
    assert len([caller for caller, _ in google.asked if caller == "loud"]) == AT_ONCE
    assert ("sync", "ada") in google.asked
    google.proceed.set()
    await asyncio.gather(*asking)


async def test_who_is_gone_leaves_the_refresh_and_its_turn_as_they_are(
    refreshes: RefreshesByShare, google: HangingGoogle
) -> None:
    stored = _grant("ada")
    gone, stays = (
        asyncio.create_task(refreshes.refresh(stored, ("a",), Behalf("sync"))) for _ in range(2)
    )
    await google.settle()
    gone.cancel()
    await google.settle()
    google.proceed.set()
    assert await stays
    assert len(google.asked) == 1


async def test_a_line_that_is_too_long_is_told(google: HangingGoogle) -> None:
    refreshes = RefreshesByShare(google, Turns(at_once=1, waiting=0, patience_seconds=30))
    first = asyncio.create_task(refreshes.refresh(_grant("ada"), ("a",), Behalf("sync")))
    await google.settle()
    with pytest.raises(OverloadedError):
        await refreshes.refresh(_grant("grace"), ("a",), Behalf("sync"))
    google.proceed.set()
    await first
