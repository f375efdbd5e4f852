"""Deletes what no longer counts from the tables of grants: expired access tokens, leases that ended
long ago, and grants that were withdrawn long ago.

No index finds these: each would cost more, with every refresh, than it saves here. So each table is
walked by its pages, some a round, however many rows it has. What somebody has in hand is left for
the next time around.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from broker.clock import Clock
from broker.database.database import Database
from broker.database.queries import load_queries

_SQL = load_queries("broker.grants")

KEPT_AFTER_END = timedelta(hours=1)
"""Of access tokens that expired, and leases that ended. No refresh takes nearly so long, so that
nobody still believes to hold such a lease; and one that is made anew has a higher fence."""

KEPT_AFTER_WITHDRAWAL = timedelta(days=31)
"""Of grants: for as long as an event of Google's may still come that is about one."""

_PAGES_AT_ONCE = 250
"""In one statement: 2 MB, some thousand rows."""

_PAGES_EACH_ROUND = 1000


@dataclass(slots=True)
class _Walk:
    """Through one table, again and again."""

    table: str
    purge: str
    """The query that deletes from some pages of it what ended before a time."""
    kept: timedelta
    page: int = 0


class GrantPurge:
    """Each replica walks by itself: what one has deleted costs the others nothing."""

    def __init__(self, database: Database, clocks: Sequence[Clock]) -> None:
        """The time is the earliest of the clocks: one that is set ahead must not end anything."""
        self._database = database
        self._clocks = clocks
        self._walks = (
            _Walk("access_tokens", _SQL["purge_access_tokens"], KEPT_AFTER_END),
            _Walk("refresh_leases", _SQL["purge_leases"], KEPT_AFTER_END),
            _Walk("grants", _SQL["purge_grants"], KEPT_AFTER_WITHDRAWAL),
        )

    async def round(self) -> None:
        """Go on for some pages in each table. Raises `StorageUnavailable`."""
        for walk in self._walks:
            await self._go_on(walk)

    async def _go_on(self, walk: _Walk) -> None:
        before = min(clock.now() for clock in self._clocks) - walk.kept
        pages = await self._database.fetchval(_SQL["pages_of_table"], walk.table)
        for _ in range(_PAGES_EACH_ROUND // _PAGES_AT_ONCE):
            if walk.page >= pages:
                walk.page = 0
                return
            end = walk.page + _PAGES_AT_ONCE
            await self._database.execute(walk.purge, (walk.page, 0), (end, 0), before)
            walk.page = end
            await asyncio.sleep(0)
