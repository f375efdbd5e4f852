"""A pool of connections with a limit per share.

A connection whose use did not end cleanly is closed, never repaired and lent again. Connections are
not reset either: that is a round trip of its own, as long as a read. So no statement of the broker
may leave anything behind in its session; a test checks all of them.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

import asyncpg

from broker.database.shares import KeyedSemaphore, Share, current_share

_IDLE_SECONDS = 300.0
"""A connection that was idle for this long is closed, unless it is the last one."""

_LIFE_SECONDS = 3600.0
"""For busy connections too: the server's process keeps whatever it has cached."""

_CLOSE_SECONDS = 1.0

_ALL = "all shares"

_CLOSE_ERRORS = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError)


class PoolClosedError(Exception):
    """The pool is closed."""


class PoolExhaustedError(Exception):
    """All connections were in use until the time-out."""


class ShareExhaustedError(PoolExhaustedError):
    """All connections of this share were in use; other shares and the server may be fine."""


class PooledConnection(asyncpg.Connection):
    """A connection with the pool's data about it."""

    __slots__ = ("ends_at", "generation", "idle_since", "share")

    generation: int
    ends_at: float
    idle_since: float
    share: Share
    """The share for which it is used, or was used last."""

    def cut(self) -> None:
        """Break the connection as a network failure does: its user gets a connection error.

        After `terminate`, the driver raises an `AttributeError` between two of its steps.
        """
        if not self.is_closed():
            self._transport.abort()  # type: ignore[attr-defined]


class ConnectionPool:
    """Lends connections, the most recently used first, within the limit of each share."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[PooledConnection]],
        *,
        size: int,
        timeout_seconds: float,
    ) -> None:
        """`timeout_seconds` bounds the wait for a free connection and for the server."""
        self._connect = connect
        self._size = size
        self._timeout_seconds = timeout_seconds
        self._permits = KeyedSemaphore()
        self._shares = KeyedSemaphore()
        self._idle: list[PooledConnection] = []
        self._used: set[PooledConnection] = set()
        self._closing: set[asyncio.Task[None]] = set()
        self._generation = 0
        self._is_closed = False

    @property
    def size(self) -> int:
        """The maximum number of connections."""
        return self._size

    @property
    def in_use(self) -> int:
        """The number of connections that are lent, being opened, or being closed after use."""
        return self._permits.held(_ALL)

    @property
    def idle(self) -> int:
        """The number of open connections that are not lent."""
        return len(self._idle)

    @property
    def waiting_for_pool(self) -> int:
        """The number of calls that wait because all connections are in use."""
        return self._permits.waiting(_ALL)

    @property
    def waiting_for_share(self) -> int:
        """The number of calls that wait because all connections of their share are in use."""
        return self._shares.all_waiting

    def acquire_idle(self) -> PooledConnection | None:
        """Return a connection if `acquire` would return one without waiting, else None."""
        share = current_share()
        if not self._idle or not self._permits.try_acquire(_ALL, self._size):
            return None
        if not self._shares.try_acquire(*share):
            self._permits.release(_ALL)
            return None
        connection = self._take_idle()
        if connection is None:
            self._permits.release(_ALL)
            self._shares.release(share.name)
            return None
        connection.share = share
        return connection

    async def acquire(self, on_turn: Callable[[], None] = lambda: None) -> PooledConnection:
        """Return a connection, to be given back to `release`; call `on_turn` once the share has
        room.

        Raises `PoolExhaustedError`, `PoolClosedError`, `TimeoutError` if the server does not accept
        the connection in time, and whatever connecting raises. If the server had less than half of
        the time, because the rest was spent waiting for a turn, `PoolExhaustedError` is raised.
        """
        if self._is_closed:
            raise PoolClosedError
        share = current_share()
        until = asyncio.get_running_loop().time() + self._timeout_seconds
        try:
            async with asyncio.timeout_at(until):
                await self._shares.acquire(*share)
        except TimeoutError:
            raise ShareExhaustedError from None
        try:
            on_turn()
            connection = await self._acquire_with_permit(until)
        except BaseException:
            self._shares.release(share.name)
            raise
        connection.share = share
        return connection

    async def _acquire_with_permit(self, until: float) -> PooledConnection:
        try:
            async with asyncio.timeout_at(until):
                await self._permits.acquire(_ALL, self._size)
        except TimeoutError:
            raise PoolExhaustedError from None
        connection = self._take_idle()
        if connection is not None:
            return connection
        return await self._open_until(until)

    def _take_idle(self) -> PooledConnection | None:
        while self._idle and not self._is_closed:
            connection = self._idle.pop()
            if not connection.is_closed():
                self._used.add(connection)
                return connection
            connection.terminate()
        return None

    async def _open_until(self, until: float) -> PooledConnection:
        left = until - asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout_at(until):
                return await self._open()
        except TimeoutError:
            if left < self._timeout_seconds / 2:
                raise PoolExhaustedError from None
            raise

    async def _open(self) -> PooledConnection:
        if self._is_closed:
            self._permits.release(_ALL)
            raise PoolClosedError
        generation = self._generation
        try:
            connection = await self._connect()
        except BaseException:
            self._permits.release(_ALL)
            raise
        connection.generation = generation
        connection.ends_at = asyncio.get_running_loop().time() + _LIFE_SECONDS
        self._used.add(connection)
        return connection

    def release(self, connection: PooledConnection, *, is_clean: bool) -> asyncio.Task[None] | None:
        """Give a connection back. It is closed if its use was not `is_clean`.

        Returns the task that closes it, if any: once that is done, nothing is under way on it.
        """
        self._used.discard(connection)
        if connection.is_closed():
            connection.terminate()
            self._end_use(connection.share)
            return None
        now = asyncio.get_running_loop().time()
        if (
            not is_clean
            or connection.is_in_transaction()
            or connection.generation != self._generation
            or connection.ends_at < now
        ):
            return self._close_later(connection, then=partial(self._end_use, connection.share))
        connection.idle_since = now
        self._idle.append(connection)
        self._end_use(connection.share)
        if self._idle[0].idle_since < now - _IDLE_SECONDS:
            self._close_later(self._idle.pop(0))
        return None

    def _end_use(self, share: Share) -> None:
        self._permits.release(_ALL)
        self._shares.release(share.name)

    def expire(self) -> None:
        """Lend no connection again that is open now."""
        self._generation += 1
        idle, self._idle = self._idle, []
        for connection in idle:
            self._close_later(connection)

    def cut(self) -> None:
        """Also break the connections that are lent now."""
        self.expire()
        for connection in self._used:
            connection.cut()

    def _close_later(
        self, connection: PooledConnection, then: Callable[[], None] = lambda: None
    ) -> asyncio.Task[None]:
        task = asyncio.create_task(_close(connection))
        self._closing.add(task)

        def closed(_task: asyncio.Task[None]) -> None:
            self._closing.discard(task)
            then()

        task.add_done_callback(closed)
        return task

    async def close(self, *, within: float) -> None:
        """Lend nothing more, wait `within` seconds for lent connections, and close all; once."""
        if self._is_closed:
            return
        self._is_closed = True
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                for _ in range(self._size):
                    await self._permits.acquire(_ALL, self._size)
        self.expire()
        for connection in list(self._used):
            connection.terminate()
        await asyncio.gather(*self._closing)


async def _close(connection: PooledConnection) -> None:
    """Also cancels a query that is still under way."""
    try:
        await connection.close(timeout=_CLOSE_SECONDS)
    except _CLOSE_ERRORS:
        connection.terminate()
    except BaseException:
        connection.terminate()
        raise
