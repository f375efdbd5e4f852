"""Stands in front of the refresher: no caller has all of the refreshes that there may be."""

import asyncio
from uuid import UUID

from broker.callers.limits import (
    REFRESH_PATIENCE_SECONDS,
    REFRESHES_OF_A_GRANT_AT_ONCE,
    REFRESHES_WAITING,
)
from broker.grants.model import scope_set
from broker.grants.rows import StoredGrant
from broker.limits.concurrency import Turns
from broker.tokens.refresh.refresher import Behalf, Refreshes, RefreshResult

_Key = tuple[str, UUID, str]


class RefreshesByShare:
    """A turn for all requests of one caller that need the same refresh.

    It lasts until the refresh has ended, even if nobody waits for it any more.
    """

    def __init__(self, refresher: Refreshes, turns: Turns) -> None:
        """`turns` are those of each caller."""
        self._refresher = refresher
        self._turns = turns
        self._turns_of_grants = Turns(
            at_once=REFRESHES_OF_A_GRANT_AT_ONCE,
            waiting=REFRESHES_WAITING,
            patience_seconds=REFRESH_PATIENCE_SECONDS,
        )
        self._under_way: dict[_Key, asyncio.Task[RefreshResult]] = {}

    async def refresh(
        self, stored: StoredGrant, scopes: tuple[str, ...], behalf: Behalf
    ) -> RefreshResult:
        """As the refresher does, in turn. Raises `OverloadedError`, too."""
        key = (behalf.caller or "", stored.grant.id, scope_set(scopes))
        task = self._under_way.get(key)
        if task is None:
            task = asyncio.create_task(self._in_turn(stored, scopes, behalf))
            self._under_way[key] = task
            task.add_done_callback(lambda done: self._ended(key, done))
        return await asyncio.shield(task)

    async def _in_turn(
        self, stored: StoredGrant, scopes: tuple[str, ...], behalf: Behalf
    ) -> RefreshResult:
        caller = behalf.caller or ""
        of_grant = f"{caller} {stored.grant.id}"
        # First, so that those who wait for a slow account take none of the caller's turns.
        await self._turns_of_grants.take(of_grant)
        try:
            await self._turns.take(caller)
            try:
                return await self._refresher.refresh(stored, scopes, behalf)
            finally:
                self._turns.give_back(caller)
        finally:
            self._turns_of_grants.give_back(of_grant)

    def _ended(self, key: _Key, task: "asyncio.Task[RefreshResult]") -> None:
        del self._under_way[key]
        if not task.cancelled():
            # Looked at even if nobody waits any more.
            task.exception()
