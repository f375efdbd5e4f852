"""One connection pool, and one exception for every way in which PostgreSQL can be away.

Callers see `StorageUnavailable` when waiting may help, and asyncpg's own errors when the query or
the data is at fault.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import asyncpg

from broker.secret import Secret

logger = logging.getLogger(__name__)

_AWAY = (
    OSError,
    TimeoutError,
    # What asyncpg says when a connection that was just terminated is used.
    asyncpg.InternalClientError,
    # 55000, when a database does not accept connections.
    asyncpg.exceptions.ObjectNotInPrerequisiteStateError,
    asyncpg.PostgresConnectionError,
    asyncpg.exceptions.OperatorInterventionError,
    asyncpg.exceptions.InsufficientResourcesError,
    asyncpg.exceptions.ReadOnlySQLTransactionError,
    asyncpg.exceptions.InvalidAuthorizationSpecificationError,
    asyncpg.exceptions.InvalidCatalogNameError,
    # Who administers it has not let us in, or not everywhere.
    asyncpg.exceptions.InsufficientPrivilegeError,
    asyncpg.exceptions.PostgresSystemError,
    asyncpg.exceptions.IdleInTransactionSessionTimeoutError,
    # Deadlocks: whoever is chosen to give way may try again.
    asyncpg.exceptions.TransactionRollbackError,
)


_POOLED = (
    # What was prepared on one server's connection is asked of another's, or of another client's.
    asyncpg.exceptions.InvalidSQLStatementNameError,
    asyncpg.exceptions.DuplicatePreparedStatementError,
)


class StorageUnavailable(Exception):  # noqa: N818  (the contract's own word)
    """PostgreSQL can't be used just now. The message names the failure, never the address."""


Connection = asyncpg.pool.PoolConnectionProxy


@contextmanager
def _naming_outages() -> Iterator[None]:
    try:
        yield
    except _AWAY as error:
        raise StorageUnavailable(type(error).__name__) from error


def is_gone(connection: Connection | asyncpg.Connection) -> bool:
    """Whether a connection was lost, also when asyncpg has taken it back already."""
    try:
        return connection.is_closed()
    except asyncpg.InterfaceError:
        return True


async def _goes_through_a_pooler(connection: asyncpg.Connection) -> bool:
    """Whether the process that we were told of at the login is not the one that answers now."""
    try:
        answering = await connection.fetchval("SELECT pg_backend_pid()")
    except _POOLED:
        return True
    return bool(answering != connection.get_server_pid())


def describe_address_fault(error: Exception) -> str:
    """What the driver finds wrong with the address, without any of it that could be a password."""
    if isinstance(error, asyncpg.exceptions.ClientConfigurationError):
        return f"DATABASE_URL: {error.args[0]}"
    return "DATABASE_URL can't be read as an address"


class Database:
    """The broker's only way to PostgreSQL."""

    def __init__(
        self,
        url: Secret,
        *,
        max_connections: int = 10,
        connect_seconds: float = 3.0,
        command_seconds: float = 5.0,
        opens_when_used: bool = False,
    ) -> None:
        """With `opens_when_used` there is no need to `open`; it may be away at the start."""
        self._opens_when_used = opens_when_used
        self._url = url
        self._max_connections = max_connections
        self._connect_seconds = connect_seconds
        self._command_seconds = command_seconds
        self._pool: asyncpg.Pool | None = None
        self._opening = asyncio.Lock()
        self._is_pooled = False
        self._away_at: float | None = None
        self._is_closed = False

    async def open(self) -> None:
        """Connect. Raises `StorageUnavailable`."""
        try:
            with _naming_outages():
                self._pool = await asyncpg.create_pool(
                    self._url.reveal(),
                    min_size=1,
                    max_size=self._max_connections,
                    timeout=self._connect_seconds,
                    command_timeout=self._command_seconds,
                    server_settings={"application_name": "token-broker"},
                    connect=self._connect,
                )
        except (asyncpg.InterfaceError, ValueError, OverflowError) as error:
            raise StorageUnavailable(describe_address_fault(error)) from error

    async def _connect(self, *args: Any, **kwargs: Any) -> asyncpg.Connection:
        """A connection for the pool, that prepares no statements if they would be lost.

        A pooler in transaction mode hands each transaction to another server connection, where
        a statement's name may be unknown, or worse, somebody else's.
        """
        if not self._is_pooled:
            connection: asyncpg.Connection = await asyncpg.connect(*args, **kwargs)
            try:
                if not await _goes_through_a_pooler(connection):
                    return connection
            except BaseException:
                connection.terminate()
                raise
            connection.terminate()
            self._note_pooler()
        unprepared: asyncpg.Connection = await asyncpg.connect(
            *args, statement_cache_size=0, **kwargs
        )
        return unprepared

    def _note_pooler(self) -> None:
        if not self._is_pooled:
            self._is_pooled = True
            logger.warning(
                "PostgreSQL is reached through a pooler: statements are not kept prepared, "
                "and notices of changes may not arrive; looking for them takes up to a second"
            )

    async def _open_once(self) -> None:
        async with self._opening:
            if self._is_closed or not self._opens_when_used:
                raise StorageUnavailable("not connected")
            if self._pool is None:
                await self.open()

    async def close(self) -> None:
        """Let running queries end for a moment, then hang up."""
        self._is_closed = True
        if self._pool is None:
            return
        try:
            await asyncio.wait_for(self._pool.close(), timeout=3)
        except TimeoutError:
            self._pool.terminate()

    def was_away_within(self, seconds: float) -> bool:
        """Whether somebody here found PostgreSQL away so short a while ago."""
        now = asyncio.get_running_loop().time()
        return self._away_at is not None and now - self._away_at < seconds

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection of the pool, for a few statements without a network call in between."""
        try:
            async with self._pooled_connection() as connection:
                yield connection
        except StorageUnavailable:
            self._away_at = asyncio.get_running_loop().time()
            raise

    @asynccontextmanager
    async def _pooled_connection(self) -> AsyncIterator[Connection]:
        if self._pool is None:
            await self._open_once()
        assert self._pool is not None  # noqa: S101  (opened, or `StorageUnavailable` was raised)
        defect: asyncpg.InterfaceError | None = None
        with _naming_outages():
            async with self._acquired(self._pool) as connection:
                try:
                    yield connection
                except _POOLED as error:
                    # A pooler that shows the server's own process ids, or has come in between.
                    self._note_pooler()
                    await self._pool.expire_connections()
                    raise StorageUnavailable(type(error).__name__) from error
                except asyncpg.InterfaceError as error:
                    if is_gone(connection):
                        raise StorageUnavailable(type(error).__name__) from error
                    defect = error
        if defect is not None:
            raise defect

    @asynccontextmanager
    async def _acquired(self, pool: asyncpg.Pool) -> AsyncIterator[Connection]:
        """A connection; an `InterfaceError` of the pool's own is an outage, such as its closing."""
        try:
            connection = await pool.acquire(timeout=self._connect_seconds)
        except asyncpg.InterfaceError as error:
            raise StorageUnavailable(type(error).__name__) from error
        try:
            yield connection
        finally:
            await pool.release(connection)

    @asynccontextmanager
    async def own_connection(self) -> AsyncIterator[asyncpg.Connection]:
        """A connection outside the pool, to be kept for as long as it lasts."""
        try:
            with _naming_outages():
                connection = await asyncpg.connect(
                    self._url.reveal(),
                    timeout=self._connect_seconds,
                    command_timeout=self._command_seconds,
                    statement_cache_size=0,
                    server_settings={"application_name": "token-broker listener"},
                )
        except (asyncpg.InterfaceError, ValueError, OverflowError) as error:
            raise StorageUnavailable(describe_address_fault(error)) from error
        try:
            with _naming_outages():
                yield connection
        finally:
            try:
                await connection.close(timeout=1)
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
                connection.terminate()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """All or nothing. Never hold one across a call to anybody else."""
        async with self.connection() as connection, connection.transaction():
            yield connection

    async def fetch(self, query: str, *args: object) -> list[asyncpg.Record]:
        """All rows."""
        async with self.connection() as connection:
            return await connection.fetch(query, *args)

    async def fetchrow(self, query: str, *args: object) -> asyncpg.Record | None:
        """The first row, or nothing."""
        async with self.connection() as connection:
            return await connection.fetchrow(query, *args)

    async def fetchval(self, query: str, *args: object) -> Any:
        """The first column of the first row, or nothing."""
        async with self.connection() as connection:
            return await connection.fetchval(query, *args)

    async def execute(self, query: str, *args: object) -> str:
        """The command tag, such as `UPDATE 1`."""
        async with self.connection() as connection:
            return await connection.execute(query, *args)

    async def copy_text_in(
        self, table: str, columns: Sequence[str], lines: AsyncIterator[bytes]
    ) -> None:
        """Append many rows at once, all or none, from lines in COPY's text format."""
        async with self.connection() as connection:
            await connection.copy_to_table(table, source=lines, columns=list(columns))

    async def ping(self) -> None:
        """Raises `StorageUnavailable` when PostgreSQL does not answer."""
        await self.fetchval("SELECT 1")
