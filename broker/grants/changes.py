"""Learns of every change to a grant, whichever replica made it: by notice at once, else by looking.

A notice may be lost: the listening connection breaks, or sits behind a pooler that hands it to
others. So the table is looked at twice a second as well, and a change is known within a second
either way.
"""

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from uuid import UUID

import asyncpg

from broker.database.clock import DatabaseClock
from broker.database.database import Database, StorageUnavailable
from broker.database.queries import load_queries

logger = logging.getLogger(__name__)

_SQL = load_queries("broker.grants")

GRANTS_CHANNEL = "broker_grants"
REFRESHES_CHANNEL = "broker_refreshes"
LOOK_SECONDS = 0.4
"""How often the table is looked at."""

_OVERLAP = timedelta(seconds=15)
"""A change is stamped before it is committed; longer than any transaction here lasts."""

_RELISTEN_SECONDS = 1.0

OnChange = Callable[[str, UUID, int], None]
"""Told the user id, the grant and its new version."""


class GrantChanges:
    """Tells of each change once; of those this process made itself, too."""

    def __init__(
        self,
        database: Database,
        clock: DatabaseClock,
        *,
        on_change: OnChange,
        on_refreshed: Callable[[UUID], None],
    ) -> None:
        """`on_refreshed` is told the grant whose refresh ended, well or not, if the notice came."""
        self._database = database
        self._clock = clock
        self._on_change = on_change
        self._on_refreshed = on_refreshed
        self._seen: dict[UUID, tuple[int, datetime]] = {}
        self._since: datetime | None = None

    def is_outdated(self, grant_id: UUID, version: int) -> bool:
        """Whether a later version of the grant was heard of, of late."""
        return version < self._seen.get(grant_id, (0, None))[0]

    async def look(self) -> None:
        """Look at what changed since the last look. Raises `StorageUnavailable`."""
        own = self._clock.own
        asked_at = own.now()
        since = self._since - _OVERLAP if self._since is not None else None
        rows = await self._database.read(_SQL["changed_since"], since)
        self._clock.learn(rows[0]["now"], asked_at=asked_at, answered_at=own.now())
        for row in rows:
            if row["id"] is not None:
                self._note(row["user_id"], UUID(bytes=row["id"].bytes), row["version"])
        self._since = rows[0]["now"]
        self._forget_old(rows[0]["now"] - 4 * _OVERLAP)

    async def listen(self) -> None:
        """Listen for notices until cancelled; a broken connection is made again."""
        while True:
            try:
                await self._listen_until_lost()
            except StorageUnavailable as error:
                logger.debug("not listening for changes", extra={"reason": str(error)})
            await asyncio.sleep(_RELISTEN_SECONDS)

    async def _listen_until_lost(self) -> None:
        lost = asyncio.Event()
        async with self._database.own_connection() as connection:
            connection.add_termination_listener(lambda _connection: lost.set())
            await connection.add_listener(GRANTS_CHANNEL, self._on_notice)
            await connection.add_listener(REFRESHES_CHANNEL, self._on_notice)
            await lost.wait()

    def _on_notice(
        self,
        _connection: asyncpg.Connection | asyncpg.pool.PoolConnectionProxy,
        _pid: int,
        channel: str,
        payload: object,
    ) -> None:
        try:
            if channel == REFRESHES_CHANNEL:
                self._on_refreshed(UUID(str(payload)))
                return
            grant_id, version, user_id = str(payload).split(" ", 2)
            self._note(user_id, UUID(grant_id), int(version))
        except ValueError:
            logger.warning("a notice of another replica can't be read")

    def _note(self, user_id: str, grant_id: UUID, version: int) -> None:
        known, _ = self._seen.get(grant_id, (0, None))
        if version > known:
            self._seen[grant_id] = (version, self._clock.now())
            self._on_change(user_id, grant_id, version)

    def _forget_old(self, horizon: datetime) -> None:
        if len(self._seen) > 1000:
            self._seen = {g: seen for g, seen in self._seen.items() if seen[1] > horizon}
