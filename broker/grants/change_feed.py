"""The change feed: learns of every change to a grant on any replica, by LISTEN/NOTIFY and a poll.

A notification may be lost: the connection breaks, or a pooler hands it to another client. So the
table is polled every 0.4 seconds as well, and a change is known within a second either way. The
same poll detects a failover to another server, which may lack the newest commits.

The feed has a connection of its own, so that other users of the database can't delay it. If an
answer is late, another connection is tried beside the first: a server that disappeared without a
word then does not delay the feed of its successor.
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
from broker.database.driver import reports_timeline
from broker.database.failure_detector import PROBE_SECONDS
from broker.database.queries import load_queries
from broker.grants.recent_changes import GrantChange, RecentChanges

logger = logging.getLogger(__name__)

_SQL = load_queries("broker.grants")

GRANTS_CHANNEL = "broker_grants"
REFRESHES_CHANNEL = "broker_refreshes"
POLL_SECONDS = 0.4
"""The interval between polls of the table."""

LATE_SECONDS = 0.3
"""After this, another connection is tried beside a poll; later tries have twice the time."""

_RECHECK_SECONDS = 0.01

_OVERLAP = timedelta(seconds=15)
"""A change is timestamped before it is committed. No transaction here lasts this long."""

_RETRY_SECONDS = 0.1
_MAX_TRIES = 5
"""Connections tried beside the one that worked last; the oldest is closed for the next."""

OnFailover = Callable[[Sequence[GrantChange]], None]
"""Called with all changes known before the failover."""


class ChangeFeed:
    """Passes each change to `recent_changes` once, including those of this process."""

    def __init__(
        self,
        database: Database,
        clock: DatabaseClock,
        recent_changes: RecentChanges,
        *,
        on_refreshed: Callable[[UUID], None],
        on_failover: OnFailover,
        on_poll: Callable[[float], None],
    ) -> None:
        """`on_refreshed` receives the id of a grant whose refresh ended, successfully or not, if
        the notification arrived. `on_poll` receives the event loop's time at which an answered poll
        began.
        """
        self._database = database
        self._clock = clock
        self._recent_changes = recent_changes
        self._on_refreshed = on_refreshed
        self._on_failover = on_failover
        self._on_poll = on_poll
        self._since: datetime | None = None
        self._timeline: str | None = None
        self._due_at = 0.0
        """When the next answer is late, and another connection is tried."""
        self._working: asyncio.Task[None] | None = None
        """The task whose connection answered last."""
        self._trying: list[asyncio.Task[None]] = []
        self._stopping: set[asyncio.Task[None]] = set()

    async def poll(self) -> None:
        """Poll once, before anything is served. Raises `StorageUnavailable`."""
        async with self._database.dedicated_connection() as connection:
            await self._poll(connection, with_timeline=await reports_timeline(connection))
        if self._timeline is None:
            logger.warning(
                "PostgreSQL does not report its timeline: a failover that loses commits would not "
                "be detected (one of Amazon Aurora loses none)",
                extra={"event": "postgres_timeline_unavailable"},
            )

    async def follow(self) -> None:
        """Poll and listen until cancelled."""
        loop = asyncio.get_running_loop()
        self._due_at = loop.time()
        try:
            while True:
                if loop.time() >= self._due_at:
                    # If this process itself is late, the answer may have arrived already.
                    await asyncio.sleep(_RECHECK_SECONDS)
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
                    self._note_lost(task)
        finally:
            for task in self._running():
                self._stop(task)
            await asyncio.gather(*self._stopping, return_exceptions=True)

    def _running(self) -> list[asyncio.Task[None]]:
        return [*self._trying, *([self._working] if self._working is not None else [])]

    def _try_another(self) -> None:
        if self._trying:
            # The second late answer: reads from the pool must not wait for the server either.
            self._database.suspect()
        if len(self._trying) == _MAX_TRIES:
            self._stop(self._trying.pop(0))
        late_seconds = LATE_SECONDS * (2 if self._trying else 1)
        self._trying.append(asyncio.create_task(self._follow_on_one(), name="grant changes"))
        self._due_at = asyncio.get_running_loop().time() + late_seconds

    def _stop(self, task: asyncio.Task[None]) -> None:
        self._stopping.add(task)
        task.add_done_callback(self._stopping.discard)
        task.cancel()

    def _note_lost(self, task: asyncio.Task[None]) -> None:
        """The connection was lost, or could not be opened: schedule the next one."""
        if task is self._working:
            self._working = None
        elif task in self._trying:
            self._trying.remove(task)
        retry_at = asyncio.get_running_loop().time() + _RETRY_SECONDS
        self._due_at = min(self._due_at, retry_at)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, StorageUnavailable):
            logger.debug(
                "the change feed lost its connection",
                extra={"event": "change_feed_disconnected", "reason": str(error)},
            )
        elif error is not None:
            logger.error(
                "the change feed failed",
                exc_info=error,
                extra={"event": "change_feed_failed"},
            )

    async def _follow_on_one(self) -> None:
        """Poll and listen on one connection, until it is lost."""
        lost = asyncio.Event()
        async with self._database.dedicated_connection(within=PROBE_SECONDS) as connection:
            connection.add_termination_listener(lambda _connection: lost.set())
            with_timeline = await reports_timeline(connection)
            await connection.add_listener(GRANTS_CHANNEL, self._on_notification)
            await connection.add_listener(REFRESHES_CHANNEL, self._on_notification)
            while not lost.is_set():
                await self._poll(connection, with_timeline=with_timeline)
                self._note_working()
                with suppress(TimeoutError):
                    async with asyncio.timeout(POLL_SECONDS):
                        await lost.wait()

    def _note_working(self) -> None:
        """Stop the other connections, whose answers may be older."""
        task = asyncio.current_task()
        for other in self._running():
            if other is not task:
                self._stop(other)
        self._trying.clear()
        self._working = task
        self._due_at = asyncio.get_running_loop().time() + POLL_SECONDS + LATE_SECONDS

    async def _poll(self, connection: asyncpg.Connection, *, with_timeline: bool) -> None:
        began = asyncio.get_running_loop().time()
        own = self._clock.own
        since = self._since - _OVERLAP if self._since is not None else None
        # A pooler may send each statement to another server, but not within a transaction. After a
        # failed statement the connection is closed.
        await connection.execute("BEGIN READ ONLY")
        asked_at = own.now()
        rows = await connection.fetch(_SQL["poll_changes"], since, with_timeline)
        answered_at = own.now()
        await connection.execute("COMMIT")
        is_unreported = rows[0]["timeline"] is None and self._timeline is not None
        if is_unreported and await reports_timeline(connection):
            # The server was still a standby when the connection was opened.
            raise StorageUnavailable("promoted since the connection was opened")
        self._clock.adjust(rows[0]["now"], asked_at=asked_at, answered_at=answered_at)
        self._note_timeline(rows[0]["timeline"])
        for row in rows:
            if row["id"] is not None:
                self._recent_changes.record_row(row)
        self._since = rows[0]["now"]
        self._on_poll(began)

    def _note_timeline(self, timeline: str | None) -> None:
        """Detect a failover at each poll: behind a pooler, the connection survives it."""
        before, self._timeline = self._timeline, timeline
        if before in (None, timeline):
            return
        logger.warning(
            "PostgreSQL failed over: dropping all cached tokens, and comparing the changes of the "
            "last minutes with the new primary",
            extra={"event": "postgres_failed_over", "timeline": timeline, "before": before},
        )
        # First, so that nothing more is read from the former primary.
        self._database.drop_connections()
        self._on_failover(self._recent_changes.start_new_timeline())

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
            self._recent_changes.record_version(user_id, UUID(grant_id), int(version))
        except ValueError:
            logger.warning(
                "the change feed received an invalid notification",
                extra={"event": "change_notification_invalid"},
            )
