"""Reads a user's grants once for all requests of one caller that ask at the same moment.

A thousand requests come at the moment that a token expires. Were each to read, they would wait for
each other at the pool for so long that PostgreSQL seems to be away. Callers are kept apart: each
reads with its own share of the connections.
"""

import asyncio
from collections.abc import Sequence

from broker.database.database import StorageUnavailable
from broker.database.shares import current_share
from broker.grants.rows import StoredGrant
from broker.grants.store import GrantStore
from broker.tokens.cache.token_cache import Watch
from broker.tokens.refresh.refresher import LookAgain

_Outcome = Sequence[StoredGrant] | Exception


class _Look:
    """A read that is under way, and those who wait for it besides the one who reads."""

    __slots__ = ("_waiting", "watch")

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        """Begun before the read: what it did not see, it did not give either."""
        self._waiting: list[asyncio.Future[_Outcome]] = []

    def outcome(self) -> asyncio.Future[_Outcome]:
        waiting: asyncio.Future[_Outcome] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        return waiting

    def end(self, outcome: _Outcome) -> None:
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(outcome)


class SharedLooks:
    """The way to a user's grants for those who hand out tokens."""

    def __init__(self, grants: GrantStore) -> None:
        self._grants = grants
        self._under_way: dict[tuple[str, str], _Look] = {}

    async def find(self, user_id: str, watch: Watch) -> Sequence[StoredGrant]:
        """The user's live grants, read after `watch` or after another that has seen no change.

        Raises `StorageUnavailable`, and `LookAgain` where the read that was joined came to nothing.
        """
        key = (current_share().name, user_id)
        look = self._under_way.get(key)
        if look is None or look.watch.changed:
            return await self._read(key, watch)
        found = await look.outcome()
        if look.watch.changed:
            raise LookAgain
        if isinstance(found, StorageUnavailable):
            # Another one, for each has a traceback of its own; of the same kind.
            raise type(found)(str(found)) from found
        if isinstance(found, Exception):
            raise found
        return found

    async def _read(self, key: tuple[str, str], watch: Watch) -> Sequence[StoredGrant]:
        look = self._under_way[key] = _Look(watch)
        _, user_id = key
        # Whoever reads may be cancelled, or meet a defect: then the next one reads.
        outcome: _Outcome = LookAgain()
        try:
            outcome = await self._grants.find(user_id)
            return outcome
        except StorageUnavailable as error:
            outcome = error
            raise
        finally:
            if self._under_way.get(key) is look:
                del self._under_way[key]
            look.end(outcome)
