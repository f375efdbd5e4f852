"""The lease on refreshing a grant, and the answer to replicas that do not get it."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from broker.grants.refresh_lease import Lease, LeaseHeld, RefreshLeases, lease_held
from tests.support.clock import ManualClock

_NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
_GRANT = UUID(int=1)


def _row(seconds: float, trouble: str | None) -> dict[str, Any]:
    return {"ends_at": _NOW + timedelta(seconds=seconds), "trouble": trouble}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (_row(7, None), LeaseHeld(timedelta(seconds=7), None)),
        (_row(0, None), LeaseHeld(timedelta(0), None)),
        (_row(-3, None), LeaseHeld(timedelta(0), None)),
        (_row(20, "google_unavailable"), LeaseHeld(timedelta(seconds=20), "google_unavailable")),
        (None, LeaseHeld(timedelta(0), None)),
    ],
    ids=["being refreshed", "ends now", "has ended", "its holder failed", "purged meanwhile"],
)
def test_a_lease_that_is_held_tells_how_long_and_why(row: Any, expected: LeaseHeld) -> None:
    assert lease_held(row, _NOW) == expected


class _Database:
    """Answers the two queries of `acquire`, and records the locks."""

    def __init__(self, fence: int | None, row: dict[str, Any] | None) -> None:
        self._fence = fence
        self._row = row
        self.locked: list[str] = []
        self.asked: list[tuple[object, ...]] = []

    def exclusively(self, *keys: str) -> "_Database":
        self.locked.extend(keys)
        return self

    async def __aenter__(self) -> None:
        return None

    async def __aexit__(self, *_: object) -> None:
        return None

    async def fetchval(self, _query: str, *args: object) -> int | None:
        self.asked.append(args)
        return self._fence

    async def fetchrow(self, _query: str, *_args: object) -> dict[str, Any] | None:
        return self._row


@pytest.mark.parametrize(
    ("fence", "row", "expected"),
    [
        (41, None, Lease(_GRANT, "calendar", 41)),
        (None, _row(7, None), LeaseHeld(timedelta(seconds=7), None)),
        (None, None, LeaseHeld(timedelta(0), None)),
    ],
    ids=["free", "held", "held, then purged"],
)
async def test_acquiring_returns_the_lease_or_how_long_it_is_held(
    fence: int | None, row: dict[str, Any] | None, expected: Lease | LeaseHeld
) -> None:
    database: Any = _Database(fence, row)
    leases = RefreshLeases(database, ManualClock(_NOW))
    duration = timedelta(seconds=10)
    assert await leases.acquire(_GRANT, "calendar", duration=duration) == expected
    assert database.asked == [(_GRANT, "calendar", _NOW, _NOW + duration)]
    assert database.locked == [f"grant {_GRANT}"]
