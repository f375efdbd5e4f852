"""The way to asyncpg's `connect`: with one flaw of the driver's mended, and TCP keepalive.

Connections are made through here alone, so that nobody connects without either.
"""

from typing import Any, TypeVar, overload

import asyncpg
from asyncpg import connect_utils

from broker.database.outages import POOLED
from broker.database.timeouts import watch_other_end

_Connection = TypeVar("_Connection", bound=asyncpg.Connection)


def _mend() -> None:
    class Upgrade(connect_utils.TLSUpgradeProto):
        """The question whether a server speaks TLS, whose answer need not interest anybody.

        Whoever connects waits for the answer only once the connection is made. Where that is given
        up before (a time-out, a stop, a cancel request for a query whose own connection was lost),
        the driver closes what it has, and that is then told to a future that nobody has: asyncio
        logs it as an error, "Future exception was never retrieved". Who does wait for it gets the
        same error.
        """

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            if not self.on_data.cancelled():
                self.on_data.exception()

    # The driver offers no way to give it another class. A test notices if it goes another way.
    connect_utils.TLSUpgradeProto = Upgrade  # type: ignore[misc]


# A driver that does without it may have the flaw; but it connects.
if hasattr(connect_utils, "TLSUpgradeProto"):
    _mend()


@overload
async def connect(
    url: str, *, connection_class: type[_Connection], **options: Any
) -> _Connection: ...


@overload
async def connect(url: str, **options: Any) -> asyncpg.Connection: ...


async def connect(url: str, **options: Any) -> asyncpg.Connection:
    """As the driver describes it."""
    connection: asyncpg.Connection = await asyncpg.connect(url, **options)
    # The driver offers no way to its socket. A test notices if it is elsewhere.
    watch_other_end(getattr(connection, "_transport", None))
    return connection


async def goes_through_a_pooler(connection: asyncpg.Connection) -> bool:
    """Whether the process that we were told of at the login is not the one that answers now."""
    try:
        answering = await connection.fetchval("SELECT pg_backend_pid()")
    except POOLED:
        return True
    return bool(answering != connection.get_server_pid())
