"""Opens connections: for the pool, or dedicated ones; detects a pooler; and finds the right host.

The driver gives all the time to the first host of an address, so that a lost machine would hide its
successor. Here the likeliest host gets a head start, and then the next is tried concurrently. Only
addresses of which one host at a time is writable are split: the host found last is then the right
one, until it stops responding.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import TypeVar
from urllib.parse import parse_qs, urlsplit

import asyncpg

from broker.database.driver import connect, is_behind_pooler
from broker.database.failure_detector import PROBE_SECONDS
from broker.database.outages import (
    StorageUnavailable,
    describe_address_fault,
    naming_outages,
    outage_in,
)
from broker.database.pool import PooledConnection
from broker.database.timeouts import Timeouts
from broker.secret import Secret

logger = logging.getLogger(__name__)

_BAD_ADDRESS = (asyncpg.InterfaceError, ValueError, OverflowError)

_Connection = TypeVar("_Connection", bound=asyncpg.Connection)

HEAD_START_SECONDS = 0.25
"""How long a host is tried alone before the next one is tried as well."""

_SINGLE_WRITABLE = {"read-write", "primary"}

_TRY_ANOTHER = (
    OSError,
    TimeoutError,
    asyncpg.exceptions.CannotConnectNowError,
    asyncpg.exceptions.TargetServerAttributeNotMatched,
)


class Connector:
    """Opens connections to the hosts of one address."""

    def __init__(
        self,
        url: Secret,
        *,
        connect_seconds: float,
        command_seconds: float,
        timeouts: Timeouts,
        on_moved: Callable[[], None],
    ) -> None:
        """`on_moved` is called when another host than before accepts a connection."""
        self._hosts = Hosts(url, on_moved=on_moved)
        self._connect_seconds = connect_seconds
        self._command_seconds = command_seconds
        self._timeouts = timeouts
        self.is_pooled = False
        """True once a pooler was detected between this process and PostgreSQL."""

    async def open_for_pool(self) -> PooledConnection:
        """Open a connection for the pool; behind a pooler, one without prepared statements.

        A pooler in transaction mode sends each transaction to another server connection, where a
        statement's name may be unknown, or mean another client's statement.
        """
        if not self.is_pooled:
            connection = await self._open_for_pool()
            try:
                if not await is_behind_pooler(connection):
                    await self._timeouts.set_for_session(connection)
                    return connection
            except BaseException:
                connection.terminate()
                raise
            connection.terminate()
            self.note_pooler()
        return await self._open_for_pool(statement_cache_size=0)

    async def _open_for_pool(self, *, statement_cache_size: int = 100) -> PooledConnection:
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
        except _BAD_ADDRESS as error:
            raise StorageUnavailable(describe_address_fault(error)) from error

    def note_pooler(self) -> None:
        """Prepare no statements from now on, and log the pooler once."""
        if not self.is_pooled:
            self.is_pooled = True
            logger.warning(
                "PostgreSQL is reached through a pooler: statements are not prepared, and change "
                "notifications may not arrive, so replicas may learn of a change up to a second "
                "later",
                extra={"event": "postgres_pooler_detected"},
            )

    async def probe(self) -> None:
        """Run a simple query on a new connection: those of the pool may be lost, or wait for locks.

        Raises `TimeoutError` without an answer.
        """
        connection = await self._hosts.connect(
            lambda url: connect(url, statement_cache_size=0), within=PROBE_SECONDS
        )
        try:
            await connection.execute("SELECT 1")
        finally:
            connection.terminate()

    @asynccontextmanager
    async def dedicated(self, *, within: float | None) -> AsyncIterator[asyncpg.Connection]:
        """Open a connection outside the pool `within` seconds, and close it at the end.

        Raises `StorageUnavailable`, also for errors of the connection's user.
        """
        try:
            with naming_outages():
                connection = await self._hosts.connect(
                    lambda url: connect(
                        url,
                        command_timeout=self._command_seconds,
                        statement_cache_size=0,
                        server_settings={"application_name": "token-broker listener"},
                    ),
                    within=within or self._connect_seconds,
                )
        except _BAD_ADDRESS as error:
            raise StorageUnavailable(describe_address_fault(error)) from error
        try:
            if not self.is_pooled:
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


class Hosts:
    """The hosts where a database may be, the likeliest first."""

    def __init__(self, url: Secret, *, on_moved: Callable[[], None]) -> None:
        """`on_moved` is called when another host than before accepts the connection."""
        self._urls = split_hosts(url)
        self._on_moved = on_moved
        self._was_found = False

    async def connect(
        self, open_connection: Callable[[str], Awaitable[_Connection]], *, within: float
    ) -> _Connection:
        """Return the connection to the first host that accepts it.

        Raises `TimeoutError` if a host hangs and no other accepts, otherwise the last host's error.
        """
        urls = tuple(self._urls)
        attempts: dict[asyncio.Task[_Connection], Secret] = {}
        errors: list[Exception] = []
        try:
            async with asyncio.timeout(within):
                for url in urls:
                    opening = asyncio.create_task(_as_coroutine(open_connection(url.reveal())))
                    attempts[opening] = url
                    head_start = None if url is urls[-1] else HEAD_START_SECONDS
                    found = await self._first_of(attempts, errors, head_start)
                    if found is not None:
                        return found
            raise errors[-1]
        finally:
            _give_up(attempts)

    async def _first_of(
        self,
        attempts: dict["asyncio.Task[_Connection]", Secret],
        errors: list[Exception],
        seconds: float | None,
    ) -> _Connection | None:
        """Return the first connection; None after `seconds`, or when all attempts have failed."""
        loop = asyncio.get_running_loop()
        until = None if seconds is None else loop.time() + seconds
        while attempts:
            left = None if until is None else max(0.0, until - loop.time())
            done, _ = await asyncio.wait(
                attempts, timeout=left, return_when=asyncio.FIRST_COMPLETED
            )
            if not done:
                return None
            for attempt in done:
                url = attempts.pop(attempt)
                try:
                    connection = attempt.result()
                except _TRY_ANOTHER as error:
                    errors.append(error)
                else:
                    self._found(url)
                    return connection
        return None

    def _found(self, url: Secret) -> None:
        has_moved = self._was_found and url is not self._urls[0]
        self._urls.remove(url)
        self._urls.insert(0, url)
        self._was_found = True
        if has_moved:
            self._on_moved()


async def _as_coroutine(connecting: Awaitable[_Connection]) -> _Connection:
    """A task needs a coroutine."""
    return await connecting


def _give_up(attempts: Iterable["asyncio.Task[_Connection]"]) -> None:
    """Waits for none: a caller cancelled meanwhile would lose the connection that was found."""
    for attempt in attempts:
        attempt.add_done_callback(_terminate)
        attempt.cancel()


def _terminate(attempt: "asyncio.Task[_Connection]") -> None:
    """The attempt may have succeeded just before it was cancelled."""
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().terminate()


def split_hosts(url: Secret) -> list[Secret]:
    """Return an address per host if only one host is writable, otherwise the address itself."""
    try:
        parts = urlsplit(url.reveal())
        options = parse_qs(parts.query)
    except ValueError:
        return [url]
    is_single_writable = options.get("target_session_attrs", [""])[0] in _SINGLE_WRITABLE
    if not is_single_writable or {"host", "port"} & set(options):
        return [url]
    user, at, hosts = parts.netloc.rpartition("@")
    return [
        Secret(parts._replace(netloc=f"{user}{at}{host}").geturl()) for host in hosts.split(",")
    ]
