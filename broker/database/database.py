"""The only access to PostgreSQL: a pool of connections, with bounded waits everywhere.

`outages` maps what can go wrong to exceptions.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import asyncpg

from broker.database.connector import Connector
from broker.database.failure_detector import SUSPECT_AFTER_SECONDS, FailureDetector
from broker.database.outages import (
    POOLED,
    StorageBusy,
    StorageContended,
    StorageUnavailable,
    describe_address_fault,
    has_finished,
    is_gone,
    outage_in,
)
from broker.database.pool import (
    ConnectionPool,
    PoolClosedError,
    PooledConnection,
    PoolExhaustedError,
    ShareExhaustedError,
)
from broker.database.shares import POOL_SIZE, KeyedMutex, current_share
from broker.database.timeouts import TRANSACTION_SECONDS, Isolation, Timeouts
from broker.secret import Secret

__all__ = [
    "Connection",
    "Database",
    "StorageBusy",
    "StorageContended",
    "StorageUnavailable",
    "describe_address_fault",
    "is_gone",
]

Connection = PooledConnection


class _Use:
    """One use of a pooled connection, as a context manager.

    A class with two methods, because nested generators cost as much as half a read.
    """

    __slots__ = ("_connection", "_database")

    _only_reads = False

    def __init__(self, database: "Database") -> None:
        self._database = database

    async def __aenter__(self) -> Connection:
        connection = self._database._acquire_idle()
        if connection is None:
            connection = await self._database._acquire(self.on_turn)
        else:
            self.on_turn()
        self._connection = connection
        return connection

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        closing, outage = self._database._release(self._connection, error)
        if closing is not None and not self._only_reads:
            # A later write must not overtake the statement that was interrupted.
            await asyncio.wait([closing])
        if outage is not None:
            raise outage from error

    def on_turn(self) -> None:
        """The share has room: from now on only the server, or the whole pool, can delay this."""


class _Read(_Use):
    """A read with a time-out that does not include the wait for the caller's own share."""

    __slots__ = ("_timeout_seconds", "limit", "suspicion")

    _only_reads = True

    def __init__(self, database: "Database", timeout_seconds: float | None) -> None:
        super().__init__(database)
        self._timeout_seconds = timeout_seconds
        self.limit = asyncio.timeout(timeout_seconds)
        self.suspicion: asyncio.TimerHandle | None = None
        """Set when its turn comes."""

    def on_turn(self) -> None:
        """Start both timers: the wait before says nothing about the server."""
        loop = asyncio.get_running_loop()
        self.suspicion = loop.call_later(SUSPECT_AFTER_SECONDS, self._database.suspect)
        if self._timeout_seconds is not None and not self.limit.expired():
            self.limit.reschedule(loop.time() + self._timeout_seconds)


class Database:
    """Connections to one database, each lent for a few statements."""

    def __init__(
        self,
        url: Secret,
        *,
        max_connections: int = POOL_SIZE,
        connect_seconds: float = 3.0,
        command_seconds: float = 5.0,
        opens_when_used: bool = False,
    ) -> None:
        """With `opens_when_used`, `open` is not needed, and the database may be down at start."""
        self._command_seconds = command_seconds
        self._timeouts = Timeouts(command_seconds)
        self._connector = Connector(
            url,
            connect_seconds=connect_seconds,
            command_seconds=command_seconds,
            timeouts=self._timeouts,
            on_moved=self._abandon_connections,
        )
        self._pool = ConnectionPool(
            self._connector.open_for_pool, size=max_connections, timeout_seconds=connect_seconds
        )
        self._mutex = KeyedMutex(timeout_seconds=connect_seconds)
        self._failure_detector = FailureDetector(
            self._connector.probe, on_failure=self._abandon_connections
        )
        self._reads: set[asyncio.Timeout] = set()
        self._is_open = opens_when_used
        self._unavailable_at: float | None = None

    async def open(self) -> None:
        """Connect. Raises `StorageUnavailable`."""
        self._is_open = True
        try:
            async with self.connection():
                pass
        except StorageUnavailable:
            self._is_open = False
            raise

    async def close(self) -> None:
        """Let running queries end for three seconds, then close all connections."""
        await self._failure_detector.close()
        await self._pool.close(within=3)

    @property
    def pool(self) -> ConnectionPool:
        """For metrics of its connections, which are lent only by the methods here."""
        return self._pool

    def was_unavailable_within(self, seconds: float) -> bool:
        """True if PostgreSQL was unavailable to this process during the last `seconds`."""
        now = asyncio.get_running_loop().time()
        return self._unavailable_at is not None and now - self._unavailable_at < seconds

    @property
    def is_suspected(self) -> bool:
        """True while PostgreSQL seems to hang, so that reads had better use another source."""
        return self._failure_detector.is_suspected

    def suspect(self) -> None:
        """Probe the server, because an answer is late."""
        self._failure_detector.suspect()

    def _abandon_connections(self) -> None:
        """PostgreSQL hangs or moved: end all reads, and lend no connection again that is open."""
        self._pool.expire()
        now = asyncio.get_running_loop().time()
        for read in self._reads:
            if not read.expired():
                read.reschedule(now)

    def drop_connections(self) -> None:
        """Close all connections after a failover, since they may lead to the former primary.

        Connections in use are broken too: what they commit on the former primary would be lost.
        """
        self._abandon_connections()
        self._pool.cut()

    def connection(self) -> AbstractAsyncContextManager[Connection]:
        """Lend a connection for a few statements without a network call in between."""
        return _Use(self)

    @asynccontextmanager
    async def exclusively(self, *keys: str) -> AsyncIterator[None]:
        """Run as the only task of the share that locks these keys in PostgreSQL.

        Tasks of the same share wait here without a connection, so that a lock that is held for long
        costs the share one connection. Tasks of other shares wait in PostgreSQL; here they would
        wait for a connection of this share. Raises `StorageBusy`. Enter it without a connection,
        and never nested.
        """
        share = current_share().name
        try:
            acquired = await self._mutex.acquire([f"{share} {key}" for key in keys])
        except TimeoutError:
            raise StorageBusy("another request of the share holds the lock") from None
        try:
            yield
        finally:
            self._mutex.release(acquired)

    def _acquire_idle(self) -> Connection | None:
        """Return a connection if one is free without waiting, as nearly always."""
        can_wait = self._is_open and not self._failure_detector.has_failed
        return self._pool.acquire_idle() if can_wait else None

    async def _acquire(self, on_turn: Callable[[], None]) -> Connection:
        if not self._is_open:
            raise self._recorded(StorageUnavailable("not connected"))
        if self._failure_detector.has_failed:
            raise self._recorded(StorageUnavailable("no answer"))
        try:
            return await self._pool.acquire(on_turn)
        except PoolClosedError as error:
            raise self._recorded(StorageUnavailable("closed")) from error
        except PoolExhaustedError as error:
            raise self._exhausted(error) from error
        except StorageUnavailable as error:
            self._recorded(error)
            raise
        except Exception as error:
            outage = outage_in(error, None)
            if outage is None:
                raise
            if isinstance(error, TimeoutError):
                self.suspect()
            raise self._recorded(outage) from error

    def _exhausted(self, error: PoolExhaustedError) -> StorageUnavailable:
        if not isinstance(error, ShareExhaustedError):
            # The users of the connections may all wait for a server that hangs.
            self.suspect()
        if self._failure_detector.has_failed:
            return self._recorded(StorageUnavailable("no answer"))
        return StorageBusy("no connection became free in time")

    def _release(
        self, connection: Connection, error: BaseException | None
    ) -> tuple[asyncio.Task[None] | None, StorageUnavailable | None]:
        """Return the task that closes the connection, if any, and the outage that the error means,
        if any.
        """
        if error is None:
            self._failure_detector.note_answer()
            return self._pool.release(connection, is_clean=True), None
        outage = self._outage_in_use(error, connection)
        return self._pool.release(connection, is_clean=has_finished(error)), outage

    def _outage_in_use(
        self, error: BaseException, connection: Connection
    ) -> StorageUnavailable | None:
        if isinstance(error, StorageUnavailable):
            self._recorded(error)
            return None
        if isinstance(error, POOLED):
            # A pooler that reports the server's own process ids, or that was added meanwhile.
            self._connector.note_pooler()
            self._pool.expire()
            return self._recorded(StorageUnavailable(type(error).__name__))
        outage = outage_in(error, connection)
        if isinstance(error, TimeoutError):
            self.suspect()
        return outage and self._recorded(outage)

    def _recorded(self, outage: StorageUnavailable) -> StorageUnavailable:
        if not isinstance(outage, StorageBusy):
            self._unavailable_at = asyncio.get_running_loop().time()
        return outage

    @asynccontextmanager
    async def dedicated_connection(
        self, *, within: float | None = None
    ) -> AsyncIterator[asyncpg.Connection]:
        """Open a connection outside the pool, for long use.

        `within` bounds the seconds to connect; the default is that of all connections. Raises
        `StorageUnavailable`, also for errors of the connection's user.
        """
        try:
            async with self._connector.dedicated(within=within) as connection:
                yield connection
        except StorageUnavailable as error:
            self._recorded(error)
            raise

    @asynccontextmanager
    async def transaction(
        self, *, isolation: Isolation | None = None, within: float = TRANSACTION_SECONDS
    ) -> AsyncIterator[Connection]:
        """Run a transaction. Never call another server inside one.

        `timeouts` bounds each wait for a lock, and each pause between statements; the whole
        transaction is cancelled after `within` seconds.
        """
        try:
            async with asyncio.timeout(within), self.connection() as connection:
                await connection.execute(
                    self._timeouts.begin(
                        isolation, within=within, server=connection.get_server_version()
                    )
                )
                try:
                    yield connection
                except BaseException as error:
                    # While a query is under way, asyncpg would wait for its end, for as long again
                    # if the server hangs. That connection is closed, which rolls back as well.
                    if has_finished(error) and not connection.is_closed():
                        await connection.execute("ROLLBACK")
                    raise
                await connection.execute("COMMIT")
        except TimeoutError as error:
            self.suspect()
            raise self._recorded(StorageUnavailable("no answer in time")) from error

    def _statement(self) -> AbstractAsyncContextManager[Connection]:
        """Lend a connection for one statement; behind a pooler, in a transaction with time-outs."""
        if not self._connector.is_pooled:
            return self.connection()
        return self.transaction(within=max(TRANSACTION_SECONDS, self._command_seconds))

    async def read(
        self, query: str, *args: object, timeout_seconds: float | None = None
    ) -> list[asyncpg.Record]:
        """Return all rows of a query that changes nothing.

        Gives up after `timeout_seconds`, or as soon as the server is known to hang.
        """
        read = _Read(self, timeout_seconds)
        self._reads.add(read.limit)
        try:
            async with read.limit, read as connection:
                return await connection.fetch(query, *args)
        except TimeoutError as error:
            if read.suspicion is None and not self._failure_detector.has_failed:
                raise StorageBusy("no connection became free in time") from error
            self.suspect()
            raise self._recorded(StorageUnavailable("no answer in time")) from error
        finally:
            if read.suspicion is not None:
                read.suspicion.cancel()
            self._reads.discard(read.limit)

    async def fetch(self, query: str, *args: object) -> list[asyncpg.Record]:
        """Return all rows."""
        async with self._statement() as connection:
            return await connection.fetch(query, *args)

    async def fetchrow(self, query: str, *args: object) -> asyncpg.Record | None:
        """Return the first row, or None."""
        async with self._statement() as connection:
            return await connection.fetchrow(query, *args)

    async def fetchval(self, query: str, *args: object) -> Any:
        """Return the first column of the first row, or None."""
        async with self._statement() as connection:
            return await connection.fetchval(query, *args)

    async def execute(self, query: str, *args: object) -> str:
        """Return the command tag, such as `UPDATE 1`."""
        async with self._statement() as connection:
            return await connection.execute(query, *args)

    async def copy_text_in(
        self, table: str, columns: Sequence[str], lines: AsyncIterator[bytes]
    ) -> None:
        """Append many rows, all or none, from lines in COPY's text format."""
        async with self._statement() as connection:
            await connection.copy_to_table(table, source=lines, columns=list(columns))

    async def ping(self) -> None:
        """Raises `StorageUnavailable` if PostgreSQL does not answer."""
        await self.fetchval("SELECT 1")
