"""Runs what goes on beside the requests, and neither lets it die quietly nor cuts it off midway."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from broker.database.database import StorageUnavailable
from broker.database.shares import BACKGROUND, Share, use_share

logger = logging.getLogger(__name__)

_PAUSE_AFTER_DEFECT = 1.0
_LAST_ROUND_SECONDS = 10.0
"""A round under way may take this long to end when the broker stops."""


class Background:
    """Rounds that come again and again, and watchers that never end."""

    def __init__(self) -> None:
        self._stopping = asyncio.Event()
        self._rounds: list[asyncio.Task[None]] = []
        self._watchers: list[asyncio.Task[None]] = []

    def every(
        self,
        seconds: float,
        name: str,
        job: Callable[[], Awaitable[object]],
        *,
        wake: asyncio.Event | None = None,
        share: Share = BACKGROUND,
    ) -> None:
        """Do a job now, and again each time that so much time has passed or `wake` is set.

        Its database connections count as those of `share`. While storage is away a round is
        skipped; one that fails otherwise is logged.
        """
        rounds = self._repeat(seconds, name, job, wake or asyncio.Event(), share)
        self._rounds.append(asyncio.create_task(rounds, name=name))

    def watch(self, name: str, job: Callable[[], Awaitable[None]]) -> None:
        """Run a job that ends only by being cancelled; if it fails it is logged and begun again."""
        self._watchers.append(asyncio.create_task(self._keep_running(name, job), name=name))

    async def stop(self) -> None:
        """Let rounds under way end, for a query that is cut off costs its connection."""
        self._stopping.set()
        for watcher in self._watchers:
            watcher.cancel()
        if self._rounds:
            _, late = await asyncio.wait(self._rounds, timeout=_LAST_ROUND_SECONDS)
            for task in late:
                task.cancel()
        await asyncio.gather(*self._rounds, *self._watchers, return_exceptions=True)

    async def _repeat(
        self,
        seconds: float,
        name: str,
        job: Callable[[], Awaitable[object]],
        wake: asyncio.Event,
        share: Share,
    ) -> None:
        use_share(share)
        stopping = asyncio.create_task(self._stopping.wait())
        while not self._stopping.is_set():
            wake.clear()
            try:
                await job()
            except StorageUnavailable as error:
                logger.debug("a job waits", extra={"job": name, "reason": str(error)})
            except Exception:
                logger.exception("a job failed and is tried again", extra={"job": name})
            waking = asyncio.create_task(wake.wait())
            await asyncio.wait(
                (stopping, waking), timeout=seconds, return_when=asyncio.FIRST_COMPLETED
            )
            waking.cancel()

    async def _keep_running(self, name: str, job: Callable[[], Awaitable[None]]) -> None:
        use_share(BACKGROUND)
        while True:
            try:
                await job()
            except Exception:
                logger.exception("a watcher failed and begins again", extra={"job": name})
                await asyncio.sleep(_PAUSE_AFTER_DEFECT)
