"""Purges the tables of grants: expired access tokens, old leases, and old revoked grants.

There is no index to find these rows: it would cost more at each refresh than it saves here. So each
table is scanned page by page, a bounded number per run, however many rows it has. Locked rows are
left for the next scan.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from broker.clock import Clock
from broker.database.database import Database
from broker.database.queries import load_queries

_SQL = load_queries("broker.grants", "purging.sql")

KEPT_AFTER_EXPIRY = timedelta(hours=1)
"""For access tokens and leases. No refresh takes nearly as long, so that no holder relies on such a
lease; a lease that is created again has a higher fencing token."""

KEPT_AFTER_REVOCATION = timedelta(days=31)
"""For grants: a security event about the grant may still arrive during this time."""

_PAGES_PER_STATEMENT = 250
"""2 MB, some thousand rows."""

_PAGES_PER_RUN = 1000


@dataclass(slots=True)
class _Scan:
    """A repeated scan of one table."""

    table: str
    purge: str
    """The query that deletes the rows on some pages that ended before a time."""
    kept: timedelta
    page: int = 0


class GrantPurge:
    """Each replica scans on its own: rows that one has deleted cost the others nothing."""

    def __init__(self, database: Database, clocks: Sequence[Clock]) -> None:
        """The earliest of the clocks counts: a clock that is ahead must not delete anything."""
        self._database = database
        self._clocks = clocks
        self._scans = (
            _Scan("access_tokens", _SQL["purge_access_tokens"], KEPT_AFTER_EXPIRY),
            _Scan("refresh_leases", _SQL["purge_leases"], KEPT_AFTER_EXPIRY),
            _Scan("grants", _SQL["purge_grants"], KEPT_AFTER_REVOCATION),
        )

    async def run_once(self) -> None:
        """Purge the next pages of each table. Raises `StorageUnavailable`."""
        for scan in self._scans:
            await self._continue(scan)

    async def _continue(self, scan: _Scan) -> None:
        before = min(clock.now() for clock in self._clocks) - scan.kept
        pages = await self._database.fetchval(_SQL["count_pages"], scan.table)
        for _ in range(_PAGES_PER_RUN // _PAGES_PER_STATEMENT):
            if scan.page >= pages:
                scan.page = 0
                return
            end = scan.page + _PAGES_PER_STATEMENT
            await self._database.execute(scan.purge, (scan.page, 0), (end, 0), before)
            scan.page = end
            await asyncio.sleep(0)
