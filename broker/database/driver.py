"""The only way to asyncpg's `connect`, with a fix for a flaw of the driver and with TCP keepalive;
and what a connection's server supports.
"""

from typing import Any, TypeVar, overload

import asyncpg
from asyncpg import connect_utils

from broker.database.outages import POOLED
from broker.database.timeouts import enable_keepalive

_Connection = TypeVar("_Connection", bound=asyncpg.Connection)

_NO_TIMELINE = (
    # 55000: Aurora, whose `wal_level` is not "logical"; also any standby.
    asyncpg.exceptions.ObjectNotInPrerequisiteStateError,
    asyncpg.exceptions.FeatureNotSupportedError,
)


def _fix_tls_upgrade() -> None:
    class Upgrade(connect_utils.TLSUpgradeProto):
        """The request whether a server supports TLS, whose answer nothing may await.

        The driver awaits the answer only once the TCP connection is open. If connecting is given up
        before (a time-out, a stop, a cancel request for a query whose own connection was lost), the
        driver closes the connection and sets an exception on a future that nothing awaits: asyncio
        logs the error "Future exception was never retrieved". Here the exception counts as
        retrieved. Code that does await the future still gets the exception.
        """

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            if not self.on_data.cancelled():
                self.on_data.exception()

    # The driver has no parameter for this class. A test fails if the driver changes.
    connect_utils.TLSUpgradeProto = Upgrade  # type: ignore[misc]


# A driver without the class may have the flaw, but it connects.
if hasattr(connect_utils, "TLSUpgradeProto"):
    _fix_tls_upgrade()


@overload
async def connect(
    url: str, *, connection_class: type[_Connection], **options: Any
) -> _Connection: ...


@overload
async def connect(url: str, **options: Any) -> asyncpg.Connection: ...


async def connect(url: str, **options: Any) -> asyncpg.Connection:
    """Connect as `asyncpg.connect` does."""
    connection: asyncpg.Connection = await asyncpg.connect(url, **options)
    # The driver has no public access to its socket. A test fails if the attribute moves.
    enable_keepalive(getattr(connection, "_transport", None))
    return connection


async def is_behind_pooler(connection: asyncpg.Connection) -> bool:
    """True if another server process answers than the one named at login."""
    try:
        answering = await connection.fetchval("SELECT pg_backend_pid()")
    except POOLED:
        return True
    return bool(answering != connection.get_server_pid())


async def reports_timeline(connection: asyncpg.Connection) -> bool:
    """True if the server reports its timeline, by which a failover is detected.

    False for a standby, and for Amazon Aurora unless logical replication is on: its servers share
    one storage, so that a failover loses no commit. Call it outside a transaction, which an error
    would abort.
    """
    try:
        await connection.execute("SELECT pg_walfile_name(pg_current_wal_lsn())")
    except _NO_TIMELINE:
        return False
    return True
