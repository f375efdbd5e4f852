"""Runs changes of a schema in use: waits briefly for each lock, backs off, and tries again.

A client that waits for a table's strongest lock makes all later clients wait too, also readers. So
a change that would wait for long rolls back, lets the others pass, and reports who holds the lock.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

import asyncpg

LOCK_SECONDS = 1.5
"""More than PostgreSQL's `deadlock_timeout` of a second, after which it cancels an autovacuum that
blocks a client; less than the broker's own statements wait for a lock."""

PAUSE_SECONDS = 3.0
"""Between two tries, for the clients that had to wait."""

GIVE_UP_SECONDS = 600.0

_WATCH_SECONDS = 0.4
"""The interval at which the holders of the lock are read."""

_BLOCKED = (asyncpg.exceptions.LockNotAvailableError, asyncpg.exceptions.DeadlockDetectedError)

_BEGIN = f"""
SET LOCAL lock_timeout = {int(LOCK_SECONDS * 1000)};
SET LOCAL statement_timeout = 0;
SET LOCAL idle_in_transaction_session_timeout = 5000
"""
"""The change itself may take long, such as an index on a large table."""

_HOLDERS = """
SELECT coalesce(
           (SELECT relation::regclass::text FROM pg_locks
            WHERE pid = $1 AND NOT granted AND relation IS NOT NULL LIMIT 1),
           'the schema') AS wanted,
       blocking.pid, activity.usename, activity.application_name, activity.state,
       extract(epoch FROM now() - activity.xact_start)::int AS seconds
FROM unnest(pg_blocking_pids($1)) AS blocking (pid)
LEFT JOIN pg_stat_activity AS activity ON activity.pid = blocking.pid
"""
"""Without their queries, which may contain what no terminal should show."""

_Result = TypeVar("_Result")


class LocksHeldError(Exception):
    """Another process held a lock for too long; the message names it."""


class LockWaits:
    """Runs changes on one connection; a second one observes what the first waits for."""

    def __init__(
        self,
        connection: asyncpg.Connection,
        observer: asyncpg.Connection,
        *,
        report: Callable[[str], None],
        give_up_seconds: float,
    ) -> None:
        """`report` gets a line for each failed try."""
        self._connection = connection
        self._observer = observer
        self._report = report
        self._give_up_seconds = give_up_seconds
        self._obstacle = ""

    async def run(self, change: Callable[[], Awaitable[_Result]]) -> _Result:
        """Run the change in a transaction once it gets its locks. Raises `LocksHeldError`."""
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + self._give_up_seconds
        while True:
            self._obstacle = "a lock, held by a process that has ended"
            try:
                async with self._watching(), self._connection.transaction():
                    await self._connection.execute(_BEGIN)
                    return await change()
            except _BLOCKED as error:
                if loop.time() >= give_up_at:
                    raise LocksHeldError(self._obstacle) from error
            self._report(f"waiting for {self._obstacle}")
            await asyncio.sleep(PAUSE_SECONDS)

    @asynccontextmanager
    async def _watching(self) -> AsyncIterator[None]:
        watch = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            watch.cancel()
            await asyncio.wait([watch])

    async def _watch(self) -> None:
        with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
            while True:
                await asyncio.sleep(_WATCH_SECONDS)
                rows = await self._observer.fetch(_HOLDERS, self._connection.get_server_pid())
                if rows:
                    holders = " and ".join(map(describe_holder, rows))
                    self._obstacle = f"a lock on {rows[0]['wanted']}, held by {holders}"


def describe_holder(holder: asyncpg.Record) -> str:
    """Return the process id of a lock's holder, and what is known of it."""
    details = [holder["usename"], holder["application_name"], holder["state"]]
    if holder["seconds"] is not None:
        details.append(f"for {holder['seconds']} s")
    return f"process {holder['pid']} ({', '.join(filter(None, details))})"
