"""Makes the lookup values that consents which wait lack: an older release's, or another key's.

What does not open is passed over: it can't be confirmed either.
"""

from uuid import UUID

import asyncpg

from broker.crypto.sealing import Sealer, UnsealingError
from broker.database.database import Database
from broker.database.queries import load_queries
from broker.grants.lookups import TokenLookups
from broker.grants.pending.rows import PendingSealer

_SQL = load_queries("broker.grants")

_PORTION = 100
_BEFORE_ALL = UUID(int=0)


class WaitingLookupFill:
    """As `LookupFill` does for grants; but there are few of these, and none of them waits long."""

    def __init__(self, database: Database, sealer: Sealer, lookups: TokenLookups) -> None:
        self._database = database
        self._sealer = PendingSealer(sealer)
        self._lookups = lookups

    async def run(self) -> None:
        """Make all of them. Raises `StorageUnavailable`."""
        beyond = _BEFORE_ALL
        while rows := await self._portion(beyond):
            beyond = UUID(bytes=rows[-1]["link_id"].bytes)
            made = [values for row in rows if (values := self._values(row)) is not None]
            async with self._database.transaction() as connection:
                await connection.executemany(_SQL["fill_waiting_lookups"], made)

    async def _portion(self, beyond: UUID) -> list[asyncpg.Record]:
        return await self._database.fetch(
            _SQL["waiting_consents_without_lookups"], self._lookups.key_id, beyond, _PORTION
        )

    def _values(self, row: asyncpg.Record) -> tuple[object, ...] | None:
        try:
            token = self._sealer.open_refresh_token(row)
        except UnsealingError:
            return None
        if token is None:
            return None
        made = self._lookups.of(token)
        sealed = row["sealed_refresh_token"]
        return row["link_id"], made.key_id, made.prefix, made.digest, sealed
