"""Learns of every change to a grant, whichever replica made it: by notification, else by polling.

A notification may be lost: the connection breaks, or sits behind a pooler that hands it to others.
So the table is polled twice a second as well, and a change is known within a second either way. The
same poll finds out that another server has become the primary, which may lack the newest commits.

All of this has a connection of its own: who else uses the database can't slow it down. An answer
that is late is not waited for alone: another connection is tried beside it, so that a server that
was lost without a word keeps nobody from the one that took its place.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from uuid import UUID

import asyncpg

from broker.database.clock import DatabaseClock
from broker.database.database import Database, StorageUnavailable
from broker.database.failure_detector import ANSWER_SECONDS
from broker.database.queries import load_queries
from broker.database.timelines import tells_timeline
from broker.grants.known_changes import KnownChange, KnownChanges

logger = logging.getLogger(__name__)

_SQL = load_queries("broker.grants")

GRANTS_CHANNEL = "broker_grants"
REFRESHES_CHANNEL = "broker_refreshes"
LOOK_SECONDS = 0.4
"""How often the table is polled."""

LATE_SECONDS = 0.3
"""A poll that takes so long is not waited for alone; the tries after that have twice the time."""

_SECOND_LOOK_SECONDS = 0.01

_OVERLAP = timedelta(seconds=15)
"""A change is stamped before it is committed; longer than any transaction here lasts."""

_RETRY_SECONDS = 0.1
_CONNECTIONS_AT_MOST = 5
"""Tried beside the one that worked last; the oldest is given up for the next."""

OnFailover = Callable[[Sequence[KnownChange]], None]
"""Called with all that was known of the history that has ended."""


class GrantChanges:
    """Passes on each change once; of those this process made itself, too."""

    def __init__(
        self,
        database: Database,
        clock: DatabaseClock,
        known: KnownChanges,
        *,
        on_refreshed: Callable[[UUID], None],
        on_failover: OnFailover,
        on_poll: Callable[[float], None],
    ) -> None:
        """`on_refreshed` gets the grant whose refresh ended, well or not, if the notification came;
        `on_poll` the event loop's time at which a poll began that was answered.
        """
        self._database = database
        self._clock = clock
        self._known = known
        self._on_refreshed = on_refreshed
        self._on_failover = on_failover
        self._on_poll = on_poll
        self._since: datetime | None = None
        self._timeline: str | None = None
        self._due_at = 0.0
        """By when a poll should have been answered; another connection is tried then."""
        self._working: asyncio.Task[None] | None = None
        """The one that was answered last."""
        self._trying: list[asyncio.Task[None]] = []
        self._ending: set[asyncio.Task[None]] = set()

    async def poll(self) -> None:
        """Poll once, before anything is served. Raises `StorageUnavailable`."""
        async with self._database.own_connection() as connection:
            await self._poll(connection, with_timeline=await tells_timeline(connection))
        if self._timeline is None:
            logger.warning(
                "PostgreSQL does not tell its timeline, so a failover that loses commits would not "
                "be noticed; Amazon Aurora's lose none"
            )

    async def follow(self) -> None:
        """Poll and listen until cancelled."""
        loop = asyncio.get_running_loop()
        self._due_at = loop.time()
        try:
            while True:
                if loop.time() >= self._due_at:
                    # If it is this process that is late, the answer may be here already.
                    await asyncio.sleep(_SECOND_LOOK_SECONDS)
                    if loop.time() >= self._due_at:
                        self._try_another()
                running = self._running()
                timeout = max(0.0, self._due_at - loop.time())
                if not running:
                    await asyncio.sleep(timeout)
                    continue
                done, _ = await asyncio.wait(
                    running, timeout=timeout, return_when=asyncio.FIRST_COMPLETED
                )
                for task in done:
                    self._ended(task)
        finally:
            for task in self._running():
                self._end(task)
            await asyncio.gather(*self._ending, return_exceptions=True)

    def _running(self) -> list[asyncio.Task[None]]:
        return [*self._trying, *([self._working] if self._working is not None else [])]

    def _try_another(self) -> None:
        if self._trying:
            # Twice too late: whoever reads by the pool had better not wait, either.
            self._database.suspect()
        if len(self._trying) == _CONNECTIONS_AT_MOST:
            self._end(self._trying.pop(0))
        patience = LATE_SECONDS * (2 if self._trying else 1)
        self._trying.append(asyncio.create_task(self._follow_on_one(), name="grant changes"))
        self._due_at = asyncio.get_running_loop().time() + patience

    def _end(self, task: asyncio.Task[None]) -> None:
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
        task.cancel()

    def _ended(self, task: asyncio.Task[None]) -> None:
        """The connection was lost, or could not be made: the next one is tried soon."""
        if task is self._working:
            self._working = None
        elif task in self._trying:
            self._trying.remove(task)
        again_at = asyncio.get_running_loop().time() + _RETRY_SECONDS
        self._due_at = min(self._due_at, again_at)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, StorageUnavailable):
            logger.debug("no news of grants", extra={"reason": str(error)})
        elif error is not None:
            logger.error("following the changes of grants failed", exc_info=error)

    async def _follow_on_one(self) -> None:
        """Poll and listen on one connection, until it is lost."""
        lost = asyncio.Event()
        async with self._database.own_connection(within=ANSWER_SECONDS) as connection:
            connection.add_termination_listener(lambda _connection: lost.set())
            with_timeline = await tells_timeline(connection)
            await connection.add_listener(GRANTS_CHANNEL, self._on_notification)
            await connection.add_listener(REFRESHES_CHANNEL, self._on_notification)
            while not lost.is_set():
                await self._poll(connection, with_timeline=with_timeline)
                self._works()
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_SECONDS):
                        await lost.wait()

    def _works(self) -> None:
        """Nothing that another connection still brings counts any more: it may be older."""
        task = asyncio.current_task()
        for other in self._running():
            if other is not task:
                self._end(other)
        self._trying.clear()
        self._working = task
        self._due_at = asyncio.get_running_loop().time() + LOOK_SECONDS + LATE_SECONDS

    async def _poll(self, connection: asyncpg.Connection, *, with_timeline: bool) -> None:
        began = asyncio.get_running_loop().time()
        own = self._clock.own
        since = self._since - _OVERLAP if self._since is not None else None
        # A pooler may hand each statement to another server, but not within a transaction. Where
        # one fails the connection is closed.
        await connection.execute("BEGIN READ ONLY")
        asked_at = own.now()
        rows = await connection.fetch(_SQL["changed_since"], since, with_timeline)
        answered_at = own.now()
        await connection.execute("COMMIT")
        tells_none_now = rows[0]["timeline"] is None and self._timeline is not None
        if tells_none_now and await tells_timeline(connection):
            # It was still a standby when it was asked for the first time.
            raise StorageUnavailable("promoted since the connection was made")
        self._clock.learn(rows[0]["now"], asked_at=asked_at, answered_at=answered_at)
        self._note_timeline(rows[0]["timeline"])
        for row in rows:
            if row["id"] is not None:
                self._known.note_row(row)
        self._since = rows[0]["now"]
        self._on_poll(began)

    def _note_timeline(self, timeline: str | None) -> None:
        """Compared by the poll, not only where a connection is made: a pooler hides those."""
        before, self._timeline = self._timeline, timeline
        if before in (None, timeline):
            return
        logger.warning(
            "PostgreSQL failed over: everything cached is dropped, and what this replica knows of "
            "the last minutes is compared with the new primary",
            extra={"timeline": timeline, "before": before},
        )
        # First of all nothing more is read from the server that is no longer the primary.
        self._database.start_over()
        self._on_failover(self._known.take_all())

    def _on_notification(
        self,
        _connection: asyncpg.Connection | asyncpg.pool.PoolConnectionProxy,
        _pid: int,
        channel: str,
        payload: object,
    ) -> None:
        try:
            if channel == REFRESHES_CHANNEL:
                self._on_refreshed(UUID(str(payload)))
                return
            grant_id, version, user_id = str(payload).split(" ", 2)
            self._known.note_version(user_id, UUID(grant_id), int(version))
        except ValueError:
            logger.warning("a notice of another replica can't be read")
