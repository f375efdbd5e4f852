"""Changes a schema that others use: waits for each lock for a moment only, and then tries again.

Whoever waits for a table's strongest lock has everybody after it wait as well, readers too. So a
change that would have to wait for long stands back, lets the others by, and says who is in the way.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

import asyncpg

LOCK_SECONDS = 1.5
"""More than PostgreSQL's `deadlock_timeout` of a second, after which it has an autovacuum stand
back for whoever waits; less than the broker's own statements wait for a lock."""

PAUSE_SECONDS = 3.0
"""Between two tries, for those who had to wait behind."""

GIVE_UP_SECONDS = 600.0

_LOOK_SECONDS = 0.4
"""How often it is looked at who is in the way."""

_IN_THE_WAY = (asyncpg.exceptions.LockNotAvailableError, asyncpg.exceptions.DeadlockDetectedError)

_BEGIN = f"""
SET LOCAL lock_timeout = {int(LOCK_SECONDS * 1000)};
SET LOCAL statement_timeout = 0;
SET LOCAL idle_in_transaction_session_timeout = 5000
"""
"""A change itself may take long, such as an index of a large table."""

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
"""Not their queries: those may hold what no terminal should show."""

_Result = TypeVar("_Result")


class LocksHeldError(Exception):
    """Somebody kept a lock for longer than one would wait; the message says who."""


class LockWaits:
    """Runs changes on one connection; a second one sees what the first waits for."""

    def __init__(
        self,
        connection: asyncpg.Connection,
        onlooker: asyncpg.Connection,
        *,
        tell: Callable[[str], None],
        give_up_seconds: float,
    ) -> None:
        """`tell` gets a line for each try in vain."""
        self._connection = connection
        self._onlooker = onlooker
        self._tell = tell
        self._give_up_seconds = give_up_seconds
        self._obstacle = ""

    async def run(self, change: Callable[[], Awaitable[_Result]]) -> _Result:
        """Do it in a transaction, as soon as it gets its locks. Raises `LocksHeldError`."""
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + self._give_up_seconds
        while True:
            self._obstacle = "a lock, held by somebody who is gone again"
            try:
                async with self._watching(), self._connection.transaction():
                    await self._connection.execute(_BEGIN)
                    return await change()
            except _IN_THE_WAY as error:
                if loop.time() >= give_up_at:
                    raise LocksHeldError(self._obstacle) from error
            self._tell(f"waiting for {self._obstacle}")
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
                await asyncio.sleep(_LOOK_SECONDS)
                rows = await self._onlooker.fetch(_HOLDERS, self._connection.get_server_pid())
                if rows:
                    holders = " and ".join(map(_described, rows))
                    self._obstacle = f"a lock on {rows[0]['wanted']}, held by {holders}"


def _described(holder: asyncpg.Record) -> str:
    about = [holder["usename"], holder["application_name"], holder["state"]]
    if holder["seconds"] is not None:
        about.append(f"for {holder['seconds']} s")
    return f"process {holder['pid']} ({', '.join(filter(None, about))})"
