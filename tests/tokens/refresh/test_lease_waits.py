"""Leases as a replica uses them: stored refusals, waits and releases."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import cast
from uuid import UUID, uuid4

import pytest

from broker.database.database import StorageUnavailable
from broker.grants.refresh_lease import Lease, LeaseHeld, RefreshLeases
from broker.tokens.refresh.lease_waits import ReplicaLeases, Wakeups, refusal_of
from broker.tokens.results import Denial, NotGranted, Outage, Unavailable

SECOND = timedelta(seconds=1)
GRANT = uuid4()
KEY = (GRANT, "calendar")
LEASE = Lease(GRANT, "calendar", 7)
SCOPES = ("calendar",)


@dataclass
class Leases:
    """Leases without a table."""

    other_scopes: list[bool] = field(default_factory=list)
    """Whether another refresh is in progress, for one check after the other."""
    released: list[tuple[timedelta, str | None]] = field(default_factory=list)
    is_unavailable: bool = False

    async def is_refreshing_other_scopes(self, _grant_id: UUID, _scope_set: str) -> bool:
        return self.other_scopes.pop(0) if self.other_scopes else False

    async def release(self, _lease: Lease, *, back_off: timedelta, problem: str | None) -> None:
        if self.is_unavailable:
            raise StorageUnavailable("away")
        self.released.append((back_off, problem))


@pytest.fixture
def leases() -> Leases:
    return Leases()


@pytest.fixture
def wakeups() -> Wakeups:
    return Wakeups()


@pytest.fixture
def replica(leases: Leases, wakeups: Wakeups) -> ReplicaLeases:
    return ReplicaLeases(cast(RefreshLeases, leases), wakeups)


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (None, None),
        ("google_unavailable", Unavailable(Outage.GOOGLE, 3 * SECOND)),
        ("storage_unavailable", Unavailable(Outage.STORAGE, 3 * SECOND)),
        ("client_misconfigured", Unavailable(Outage.CLIENT, 3 * SECOND)),
        ("scope_not_granted", NotGranted(Denial.SCOPE_NOT_GRANTED, SCOPES)),
        ("of a later release", Unavailable(Outage.GOOGLE, 3 * SECOND)),
    ],
)
def test_the_last_holders_refusal_is_every_replicas(
    stored: str | None, expected: NotGranted | Unavailable | None
) -> None:
    assert refusal_of(LeaseHeld(3 * SECOND, stored), SCOPES) == expected


@pytest.mark.parametrize(
    ("refusal", "released"),
    [
        (None, (timedelta(0), None)),
        (Unavailable(Outage.GOOGLE, SECOND), (5 * SECOND, "google_unavailable")),
        (Unavailable(Outage.STORAGE, SECOND), (5 * SECOND, "storage_unavailable")),
        (Unavailable(Outage.CLIENT, SECOND), (5 * SECOND, "client_misconfigured")),
        (NotGranted(Denial.SCOPE_NOT_GRANTED, SCOPES), (5 * SECOND, "scope_not_granted")),
        (NotGranted(Denial.REAUTHORIZATION_REQUIRED), (timedelta(0), None)),
    ],
)
async def test_a_refusal_that_concerns_all_replicas_is_stored_with_the_pause(
    replica: ReplicaLeases,
    leases: Leases,
    refusal: NotGranted | Unavailable | None,
    released: tuple[timedelta, str | None],
) -> None:
    await replica.release(LEASE, refusal=refusal, pause=5 * SECOND)

    assert leases.released == [released]


async def test_without_a_lease_nothing_is_released(replica: ReplicaLeases, leases: Leases) -> None:
    await replica.release(None)

    assert leases.released == []


async def test_a_lease_that_cannot_be_released_expires_by_itself(
    replica: ReplicaLeases, leases: Leases
) -> None:
    leases.is_unavailable = True

    await replica.release(LEASE)


@pytest.mark.parametrize(("in_progress", "releases"), [([], 0), ([True], 1), ([True, True], 2)])
async def test_while_other_scopes_are_refreshed_the_own_lease_is_not_kept(
    replica: ReplicaLeases,
    leases: Leases,
    monkeypatch: pytest.MonkeyPatch,
    in_progress: Sequence[bool],
    releases: int,
) -> None:
    monkeypatch.setattr("broker.tokens.refresh.lease_waits._RECHECK_SECONDS", 0.001)
    leases.other_scopes = list(in_progress)

    await replica.wait_for_other_scopes(KEY, LEASE)

    assert leases.released == [(timedelta(0), None)] * releases


async def test_a_wait_ends_when_the_grant_is_woken(
    replica: ReplicaLeases, wakeups: Wakeups
) -> None:
    other = LeaseHeld(timedelta(minutes=1), None)
    waiting = [asyncio.create_task(replica.wait_for_other_replica(KEY, other)) for _ in range(2)]
    await asyncio.sleep(0)
    wakeups.wake(uuid4())
    await asyncio.sleep(0.001)
    assert not any(task.done() for task in waiting)

    wakeups.wake(GRANT)

    await asyncio.wait_for(asyncio.gather(*waiting), 0.4)


@pytest.mark.parametrize("left", [timedelta(0), timedelta(milliseconds=10)])
async def test_a_wait_ends_when_the_lease_does(replica: ReplicaLeases, left: timedelta) -> None:
    await asyncio.wait_for(replica.wait_for_other_replica(KEY, LeaseHeld(left, None)), 0.4)


async def test_a_wakeup_leaves_nothing_behind(wakeups: Wakeups) -> None:
    await wakeups.wait(GRANT, seconds=0.001)

    assert wakeups._waiting == {}
