"""Leased outbox: rows to be sent elsewhere, which replicas claim for a limited time.

A claim counts an attempt and moves the row's `next_attempt_at` to the end of the lease, so that no
other replica sees it before. If the claimant dies, the row is due again then: each row is sent at
least once. What happens to a row that was sent, or could not be, is for its own package.
"""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Generic, TypeVar

import asyncpg

from broker.clock import Clock
from broker.database.database import Database

_Item = TypeVar("_Item")


class LeasedOutbox(Generic[_Item]):
    """Claims rows of one table."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        claim_query: str,
        item_from: Callable[[asyncpg.Record], _Item],
    ) -> None:
        """`claim_query` takes the time, the end of the lease and the limit.

        It must choose the rows with `FOR UPDATE SKIP LOCKED` inside `= ANY(ARRAY(…))`: a join may
        choose again, past rows that are locked by then, and so claim more than the limit.
        """
        self._database = database
        self._clock = clock
        self._claim_query = claim_query
        self._item_from = item_from

    async def claim(self, *, lease: timedelta, limit: int) -> Sequence[_Item]:
        """Claim some rows that are due. Raises `StorageUnavailable`.

        `lease` must be longer than any call that sends an item.
        """
        now = self._clock.now()
        rows = await self._database.fetch(self._claim_query, now, now + lease, limit)
        return [self._item_from(row) for row in rows]
