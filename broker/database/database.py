"""The broker's only way to PostgreSQL: one connection pool, and nobody waits for long in vain.

What can go wrong with it is named in `outages`.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import asyncpg

from broker.database.driver import connect, goes_through_a_pooler
from broker.database.failure_detector import ANSWER_SECONDS, DOUBT_SECONDS, Silence
from broker.database.hosts import Hosts
from broker.database.outages import (
    POOLED,
    StorageBusy,
    StorageContended,
    StorageUnavailable,
    describe_address_fault,
    has_finished,
    is_gone,
    naming_outages,
    outage_in,
)
from broker.database.pool import (
    ConnectionPool,
    PoolClosedError,
    PooledConnection,
    PoolExhaustedError,
    ShareExhaustedError,
)
from broker.database.shares import POOL_SIZE, Linearizer, current_share
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

logger = logging.getLogger(__name__)

Connection = PooledConnection


class _Use:
    """One use of a connection.

    An object with two methods: generators would be easier to read, and a stack of them costs as
    much as half a read.
    """

    __slots__ = ("_connection", "_database")

    _only_reads = False

    def __init__(self, database: "Database") -> None:
        self._database = database

    async def __aenter__(self) -> Connection:
        connection = self._database._take_idle()
        if connection is None:
            connection = await self._database._take(self.on_turn)
        else:
            self.on_turn()
        self._connection = connection
        return connection

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        farewell, outage = self._database._give_back(self._connection, error)
        if farewell is not None and not self._only_reads:
            # Whoever writes again must not overtake what was cut short.
            await asyncio.wait([farewell])
        if outage is not None:
            raise outage from error

    def on_turn(self) -> None:
        """The share has room: whatever is waited for from now on is the server, or all others."""


class _Read(_Use):
    """One that is given up after so long, not counting what was waited for one's own share."""

    __slots__ = ("_patience_seconds", "doubt", "limit")

    _only_reads = True

    def __init__(self, database: "Database", patience_seconds: float | None) -> None:
        super().__init__(database)
        self._patience_seconds = patience_seconds
        self.limit = asyncio.timeout(patience_seconds)
        self.doubt: asyncio.TimerHandle | None = None
        """From its turn on."""

    def on_turn(self) -> None:
        """What went by before says nothing of the server."""
        loop = asyncio.get_running_loop()
        self.doubt = loop.call_later(DOUBT_SECONDS, self._database._silence.suspect)
        if self._patience_seconds is not None and not self.limit.expired():
            self.limit.reschedule(loop.time() + self._patience_seconds)


class Database:
    """The broker's only way to PostgreSQL."""

    def __init__(
        self,
        url: Secret,
        *,
        max_connections: int = POOL_SIZE,
        connect_seconds: float = 3.0,
        command_seconds: float = 5.0,
        opens_when_used: bool = False,
    ) -> None:
        """With `opens_when_used` there is no need to `open`; it may be away at the start."""
        self._hosts = Hosts(url, on_moved=self._give_up_waiting)
        self._connect_seconds = connect_seconds
        self._command_seconds = command_seconds
        self._timeouts = Timeouts(command_seconds)
        self._pool = ConnectionPool(
            self._connect, size=max_connections, patience_seconds=connect_seconds
        )
        self._linearizer = Linearizer(patience_seconds=connect_seconds)
        self._silence = Silence(self._ask_something_easy, on_silent=self._give_up_waiting)
        self._reads: set[asyncio.Timeout] = set()
        self._is_open = opens_when_used
        self._is_pooled = False
        self._away_at: float | None = None

    async def open(self) -> None:
        """Connect. Raises `StorageUnavailable`."""
        self._is_open = True
        try:
            async with self.connection():
                pass
        except StorageUnavailable:
            self._is_open = False
            raise

    async def _connect(self) -> PooledConnection:
        """A connection for the pool, that prepares no statements if they would be lost.

        A pooler in transaction mode hands each transaction to another server connection, where
        a statement's name may be unknown, or worse, somebody else's.
        """
        if not self._is_pooled:
            connection = await self._connected()
            try:
                if not await goes_through_a_pooler(connection):
                    await self._timeouts.set_for_session(connection)
                    return connection
            except BaseException:
                connection.terminate()
                raise
            connection.terminate()
            self._note_pooler()
        return await self._connected(statement_cache_size=0)

    async def _connected(self, *, statement_cache_size: int = 100) -> PooledConnection:
        try:
            return await self._hosts.connect(
                lambda url: connect(
                    url,
                    command_timeout=self._command_seconds,
                    server_settings={"application_name": "token-broker"},
                    statement_cache_size=statement_cache_size,
                    connection_class=PooledConnection,
                ),
                within=self._connect_seconds,
            )
        except (asyncpg.InterfaceError, ValueError, OverflowError) as error:
            raise StorageUnavailable(describe_address_fault(error)) from error

    def _note_pooler(self) -> None:
        if not self._is_pooled:
            self._is_pooled = True
            logger.warning(
                "PostgreSQL is reached through a pooler: statements are not kept prepared, "
                "and notices of changes may not arrive; looking for them takes up to a second"
            )

    async def close(self) -> None:
        """Let running queries end for a moment, then hang up."""
        await self._silence.close()
        await self._pool.close(within=3)

    @property
    def pool(self) -> ConnectionPool:
        """For who counts its connections; they are borrowed by the methods here."""
        return self._pool

    def was_away_within(self, seconds: float) -> bool:
        """Whether somebody here found PostgreSQL away so short a while ago."""
        now = asyncio.get_running_loop().time()
        return self._away_at is not None and now - self._away_at < seconds

    @property
    def is_doubtful(self) -> bool:
        """Whether it seems to hang, so that who can do without it had better."""
        return self._silence.is_suspected

    async def _ask_something_easy(self) -> None:
        """On a connection of its own: those of the pool may be lost, or wait for a lock."""
        connection = await self._hosts.connect(
            lambda url: connect(url, statement_cache_size=0), within=ANSWER_SECONDS
        )
        try:
            await connection.execute("SELECT 1")
        finally:
            connection.terminate()

    def _give_up_waiting(self) -> None:
        """It hangs: reads under way need not wait on, and what was connected may be lost."""
        self._pool.expire()
        now = asyncio.get_running_loop().time()
        for read in self._reads:
            if not read.expired():
                read.reschedule(now)

    def connection(self) -> AbstractAsyncContextManager[Connection]:
        """A connection of the pool, for a few statements without a network call in between."""
        return _Use(self)

    @asynccontextmanager
    async def exclusively(self, *keys: str) -> AsyncIterator[None]:
        """Be the only one of one's share who locks these in PostgreSQL; to be begun without a
        connection.

        Whoever else of the share needs one of them waits without a connection, so that a lock which
        somebody keeps takes one of them. Other shares wait in PostgreSQL: here, they would wait for
        a connection of this one. Raises `StorageBusy`. Never nested.
        """
        share = current_share().name
        try:
            acquired = await self._linearizer.acquire([f"{share} {key}" for key in keys])
        except TimeoutError:
            raise StorageBusy("somebody else keeps what this has to lock") from None
        try:
            yield
        finally:
            self._linearizer.release(acquired)

    def _take_idle(self) -> Connection | None:
        """One that can be had without waiting for anything, as nearly always."""
        return self._pool.acquire_idle() if self._is_open and not self._silence.is_known else None

    async def _take(self, on_turn: Callable[[], None]) -> Connection:
        if not self._is_open:
            raise self._noted(StorageUnavailable("not connected"))
        if self._silence.is_known:
            raise self._noted(StorageUnavailable("no answer"))
        try:
            return await self._pool.acquire(on_turn)
        except PoolClosedError as error:
            raise self._noted(StorageUnavailable("closed")) from error
        except PoolExhaustedError as error:
            raise self._exhausted(error) from error
        except StorageUnavailable as error:
            self._noted(error)
            raise
        except Exception as error:
            outage = outage_in(error, None)
            if outage is None:
                raise
            if isinstance(error, TimeoutError):
                self._silence.suspect()
            raise self._noted(outage) from error

    def _exhausted(self, error: PoolExhaustedError) -> StorageUnavailable:
        if not isinstance(error, ShareExhaustedError):
            # Whoever has the connections may be waiting for a server that hangs.
            self._silence.suspect()
        if self._silence.is_known:
            return self._noted(StorageUnavailable("no answer"))
        return StorageBusy("no connection became free in time")

    def _give_back(
        self, connection: Connection, error: BaseException | None
    ) -> tuple[asyncio.Task[None] | None, StorageUnavailable | None]:
        """What ends the connection, if it is closed; and what the error means, if an outage."""
        if error is None:
            self._silence.hear()
            return self._pool.release(connection, is_clean=True), None
        outage = self._outage_in_use(error, connection)
        return self._pool.release(connection, is_clean=has_finished(error)), outage

    def _outage_in_use(
        self, error: BaseException, connection: Connection
    ) -> StorageUnavailable | None:
        if isinstance(error, StorageUnavailable):
            self._noted(error)
            return None
        if isinstance(error, POOLED):
            # A pooler that shows the server's own process ids, or has come in between.
            self._note_pooler()
            self._pool.expire()
            return self._noted(StorageUnavailable(type(error).__name__))
        outage = outage_in(error, connection)
        if isinstance(error, TimeoutError):
            self._silence.suspect()
        return outage and self._noted(outage)

    def _noted(self, outage: StorageUnavailable) -> StorageUnavailable:
        if not isinstance(outage, StorageBusy):
            self._away_at = asyncio.get_running_loop().time()
        return outage

    def suspect(self) -> None:
        """Somebody waits for long: find out whether the server answers at all."""
        self._silence.suspect()

    def start_over(self) -> None:
        """Another server is the primary: whatever is open may lead to the one before.

        What is in use is cut as well, for what it still commits there would be lost.
        """
        self._give_up_waiting()
        self._pool.cut()

    @asynccontextmanager
    async def own_connection(
        self, *, within: float | None = None
    ) -> AsyncIterator[asyncpg.Connection]:
        """A connection outside the pool, to be kept for as long as it lasts.

        It is made `within` so many seconds, or as long as any other may take. Raises
        `StorageUnavailable`, also for what its user met.
        """
        try:
            async with self._own_connection(within or self._connect_seconds) as connection:
                yield connection
        except StorageUnavailable as error:
            self._noted(error)
            raise

    @asynccontextmanager
    async def _own_connection(self, within: float) -> AsyncIterator[asyncpg.Connection]:
        try:
            with naming_outages():
                connection = await self._hosts.connect(
                    lambda url: connect(
                        url,
                        command_timeout=self._command_seconds,
                        statement_cache_size=0,
                        server_settings={"application_name": "token-broker listener"},
                    ),
                    within=within,
                )
        except (asyncpg.InterfaceError, ValueError, OverflowError) as error:
            raise StorageUnavailable(describe_address_fault(error)) from error
        try:
            if not self._is_pooled:
                await self._timeouts.set_for_session(connection)
            yield connection
        except Exception as error:
            outage = outage_in(error, connection)
            if outage is None:
                raise
            raise outage from error
        finally:
            try:
                await connection.close(timeout=1)
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
                connection.terminate()

    @asynccontextmanager
    async def transaction(
        self, *, isolation: Isolation | None = None, within: float = TRANSACTION_SECONDS
    ) -> AsyncIterator[Connection]:
        """All or nothing. Never hold one across a call to anybody else.

        No statement waits longer for a lock, and PostgreSQL for no next statement, than `timeouts`
        says; all of it is given up after `within` seconds.
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
            self._silence.suspect()
            raise self._noted(StorageUnavailable("no answer in time")) from error

    def _statement(self) -> AbstractAsyncContextManager[Connection]:
        """A connection for one statement: behind a pooler only a transaction bounds its waits."""
        if not self._is_pooled:
            return self.connection()
        return self.transaction(within=max(TRANSACTION_SECONDS, self._command_seconds))

    async def read(
        self, query: str, *args: object, patience_seconds: float | None = None
    ) -> list[asyncpg.Record]:
        """All rows, for who only looks: given up after so long, or as soon as the server hangs."""
        read = _Read(self, patience_seconds)
        self._reads.add(read.limit)
        try:
            async with read.limit, read as connection:
                return await connection.fetch(query, *args)
        except TimeoutError as error:
            if read.doubt is None and not self._silence.is_known:
                raise StorageBusy("no connection became free in time") from error
            self._silence.suspect()
            raise self._noted(StorageUnavailable("no answer in time")) from error
        finally:
            if read.doubt is not None:
                read.doubt.cancel()
            self._reads.discard(read.limit)

    async def fetch(self, query: str, *args: object) -> list[asyncpg.Record]:
        """All rows."""
        async with self._statement() as connection:
            return await connection.fetch(query, *args)

    async def fetchrow(self, query: str, *args: object) -> asyncpg.Record | None:
        """The first row, or nothing."""
        async with self._statement() as connection:
            return await connection.fetchrow(query, *args)

    async def fetchval(self, query: str, *args: object) -> Any:
        """The first column of the first row, or nothing."""
        async with self._statement() as connection:
            return await connection.fetchval(query, *args)

    async def execute(self, query: str, *args: object) -> str:
        """The command tag, such as `UPDATE 1`."""
        async with self._statement() as connection:
            return await connection.execute(query, *args)

    async def copy_text_in(
        self, table: str, columns: Sequence[str], lines: AsyncIterator[bytes]
    ) -> None:
        """Append many rows at once, all or none, from lines in COPY's text format."""
        async with self._statement() as connection:
            await connection.copy_to_table(table, source=lines, columns=list(columns))

    async def ping(self) -> None:
        """Raises `StorageUnavailable` when PostgreSQL does not answer."""
        await self.fetchval("SELECT 1")
