"""Stands in front of the refresher: no caller has all of the refreshes that there may be."""

import asyncio

from broker.grants.rows import StoredGrant
from broker.tokens.refresher import Behalf, Refreshes, RefreshResult
from broker.web.turns import Turns


class RefreshesByShare:
    """A turn lasts until the refresh has ended, even if nobody waits for it any more."""

    def __init__(self, refresher: Refreshes, turns: Turns) -> None:
        self._refresher = refresher
        self._turns = turns

    async def refresh(
        self, stored: StoredGrant, scopes: tuple[str, ...], behalf: Behalf
    ) -> RefreshResult:
        """As the refresher does, in turn. Raises `OverloadedError`, too."""
        name = behalf.caller or ""
        await self._turns.take(name)
        task = asyncio.ensure_future(self._refresher.refresh(stored, scopes, behalf))
        task.add_done_callback(lambda done: self._ended(name, done))
        return await asyncio.shield(task)

    def _ended(self, name: str, task: "asyncio.Future[RefreshResult]") -> None:
        self._turns.give_back(name)
        if not task.cancelled():
            # Looked at even if nobody waits any more.
            task.exception()
