"""Which grants are in doubt after a restore without an audit export: all that can be used."""

from collections.abc import AsyncIterator

import asyncpg

from broker.database.database import Connection
from broker.database.queries import load_queries

_SQL = load_queries("broker.recovery")
_ROWS_AT_ONCE = 2_000


async def live_grants(connection: Connection) -> AsyncIterator[asyncpg.Record]:
    """Every grant that can hand out a token, within the connection's transaction."""
    async for row in connection.cursor(_SQL["live_grants"], prefetch=_ROWS_AT_ONCE):
        yield row
