"""Connections kept open to be used again, at most so many at once, each by one user at a time.

A connection whose use ended in any doubt is closed, never cleaned up and given to the next. None is
asked to reset itself either: that is a round trip of its own, as long as a read. So no statement of
the broker's may leave anything behind in its session; a test holds them to it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

import asyncpg

from broker.database.shares import KeyedSemaphore, Share, current_share

_IDLE_SECONDS = 300.0
"""A connection that nobody needed for so long is closed, if it is not the last one."""

_LIFE_SECONDS = 3600.0
"""However busy it is: the server's process keeps what it has once cached."""

_GOODBYE_SECONDS = 1.0

_ALL = "all shares"

_FAREWELL = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError)


class PoolClosedError(Exception):
    """Nobody gets a connection any more."""


class PoolExhaustedError(Exception):
    """All connections were in use for as long as one may wait."""


class ShareExhaustedError(PoolExhaustedError):
    """Only those that this one may use; nothing is said of the others, or of the server."""


class PooledConnection(asyncpg.Connection):
    """A connection, with what the pool has to know of it."""

    __slots__ = ("ends_at", "generation", "idle_since", "share")

    generation: int
    ends_at: float
    idle_since: float
    share: Share
    """On whose behalf it is used, or was last."""

    def cut(self) -> None:
        """Lose it as a broken network does: whoever uses it is told so.

        After `terminate` the driver has an `AttributeError` for who is between two of its steps.
        """
        if not self.is_closed():
            self._transport.abort()  # type: ignore[attr-defined]


class ConnectionPool:
    """Lends connections, the one used last first; to each no more than its share of them."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[PooledConnection]],
        *,
        size: int,
        patience_seconds: float,
    ) -> None:
        """Whoever waits longer than `patience_seconds`, for its turn or for the server, is told."""
        self._connect = connect
        self._size = size
        self._patience_seconds = patience_seconds
        self._permits = KeyedSemaphore()
        self._shares = KeyedSemaphore()
        self._idle: list[PooledConnection] = []
        self._used: set[PooledConnection] = set()
        self._farewells: set[asyncio.Task[None]] = set()
        self._generation = 0
        self._is_closed = False

    @property
    def size(self) -> int:
        """How many connections there are at most."""
        return self._size

    @property
    def in_use(self) -> int:
        """Connections that somebody has, is opening, or has given back to be closed."""
        return self._permits.taken(_ALL)

    @property
    def idle(self) -> int:
        """Connections that are open and that nobody uses."""
        return len(self._idle)

    @property
    def waiting_for_pool(self) -> int:
        """Who waits because all connections are in use."""
        return self._permits.waiting(_ALL)

    @property
    def waiting_for_share(self) -> int:
        """Who waits because all connections of its own share are in use."""
        return self._shares.all_waiting

    def acquire_idle(self) -> PooledConnection | None:
        """What `acquire` would give at once; nothing if anything has to be waited for."""
        share = current_share()
        if not self._idle or not self._permits.acquire_now(_ALL, self._size):
            return None
        if not self._shares.acquire_now(*share):
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
        """A connection, to be given back by `release`; `on_turn` is called once the share has room.

        Raises `PoolExhaustedError`, `TimeoutError` when the server does not let us in, in time,
        `PoolClosedError`, and whatever connecting raises. Of a server that had less than half of
        the time, for the rest went by before it was our turn, nothing is said.
        """
        if self._is_closed:
            raise PoolClosedError
        share = current_share()
        until = asyncio.get_running_loop().time() + self._patience_seconds
        try:
            async with asyncio.timeout_at(until):
                await self._shares.acquire(*share)
        except TimeoutError:
            raise ShareExhaustedError from None
        try:
            on_turn()
            connection = await self._with_a_permit(until)
        except BaseException:
            self._shares.release(share.name)
            raise
        connection.share = share
        return connection

    async def _with_a_permit(self, until: float) -> PooledConnection:
        try:
            async with asyncio.timeout_at(until):
                await self._permits.acquire(_ALL, self._size)
        except TimeoutError:
            raise PoolExhaustedError from None
        connection = self._take_idle()
        if connection is not None:
            return connection
        return await self._opened_after_waiting(until)

    def _take_idle(self) -> PooledConnection | None:
        while self._idle and not self._is_closed:
            connection = self._idle.pop()
            if not connection.is_closed():
                self._used.add(connection)
                return connection
            connection.terminate()
        return None

    async def _opened_after_waiting(self, until: float) -> PooledConnection:
        left = until - asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout_at(until):
                return await self._opened()
        except TimeoutError:
            if left < self._patience_seconds / 2:
                raise PoolExhaustedError from None
            raise

    async def _opened(self) -> PooledConnection:
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
        """Give a connection back. It is not used again if its use was not `is_clean`.

        Returns what ends it, if it is closed: once that is done, nothing is under way on it.
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
            return self._part_with(connection, then=partial(self._end_use, connection.share))
        connection.idle_since = now
        self._idle.append(connection)
        self._end_use(connection.share)
        if self._idle[0].idle_since < now - _IDLE_SECONDS:
            self._part_with(self._idle.pop(0))
        return None

    def _end_use(self, share: Share) -> None:
        self._permits.release(_ALL)
        self._shares.release(share.name)

    def expire(self) -> None:
        """No connection that is open now is used again by anybody who has not got it yet."""
        self._generation += 1
        idle, self._idle = self._idle, []
        for connection in idle:
            self._part_with(connection)

    def cut(self) -> None:
        """The same, and whoever has one loses it."""
        self.expire()
        for connection in self._used:
            connection.cut()

    def _part_with(
        self, connection: PooledConnection, then: Callable[[], None] = lambda: None
    ) -> asyncio.Task[None]:
        task = asyncio.create_task(_hang_up(connection))
        self._farewells.add(task)

        def parted(_task: asyncio.Task[None]) -> None:
            self._farewells.discard(task)
            then()

        task.add_done_callback(parted)
        return task

    async def close(self, *, within: float) -> None:
        """Lend nothing more, wait so many seconds for who has a connection, and hang up; once."""
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
        await asyncio.gather(*self._farewells)


async def _hang_up(connection: PooledConnection) -> None:
    """Also ends what is still running on it."""
    try:
        await connection.close(timeout=_GOODBYE_SECONDS)
    except _FAREWELL:
        connection.terminate()
    except BaseException:
        connection.terminate()
        raise
