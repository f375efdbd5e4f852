"""Runs background jobs until the process stops, and restarts those that fail."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from broker.database.database import StorageUnavailable
from broker.database.shares import BACKGROUND, Share, use_share

logger = logging.getLogger(__name__)

_RESTART_SECONDS = 1.0
_LAST_RUN_SECONDS = 10.0
"""How long a run that has begun may take to finish when the broker stops."""


class BackgroundJobs:
    """Jobs that run at intervals, and jobs that run all the time."""

    def __init__(self) -> None:
        self._stopping = asyncio.Event()
        self._periodic: list[asyncio.Task[None]] = []
        self._permanent: list[asyncio.Task[None]] = []

    def every(
        self,
        seconds: float,
        name: str,
        job: Callable[[], Awaitable[object]],
        *,
        wake: asyncio.Event | None = None,
        share: Share = BACKGROUND,
    ) -> None:
        """Run a job now, and again each time that `seconds` have passed or `wake` is set.

        Its database connections count towards `share`. A run that finds storage unavailable is
        skipped; one that fails otherwise is logged.
        """
        repeating = self._repeat(seconds, name, job, wake or asyncio.Event(), share)
        self._periodic.append(asyncio.create_task(repeating, name=name))

    def keep_running(self, name: str, job: Callable[[], Awaitable[None]]) -> None:
        """Run a job that never returns; if it fails, it is logged and restarted."""
        self._permanent.append(asyncio.create_task(self._restart(name, job), name=name))

    async def stop(self) -> None:
        """Let runs that have begun finish: cancelling a query costs its connection."""
        self._stopping.set()
        for task in self._permanent:
            task.cancel()
        if self._periodic:
            _, late = await asyncio.wait(self._periodic, timeout=_LAST_RUN_SECONDS)
            for task in late:
                task.cancel()
        await asyncio.gather(*self._periodic, *self._permanent, return_exceptions=True)

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
                logger.debug(
                    "background job skipped: storage is unavailable",
                    extra={"event": "background_job_skipped", "job": name, "reason": str(error)},
                )
            except Exception:
                logger.exception(
                    "background job failed; it runs again at its next interval",
                    extra={"event": "background_job_failed", "job": name},
                )
            waking = asyncio.create_task(wake.wait())
            await asyncio.wait(
                (stopping, waking), timeout=seconds, return_when=asyncio.FIRST_COMPLETED
            )
            waking.cancel()

    async def _restart(self, name: str, job: Callable[[], Awaitable[None]]) -> None:
        use_share(BACKGROUND)
        while True:
            try:
                await job()
            except Exception:
                logger.exception(
                    "background job failed; it is restarted",
                    extra={"event": "background_job_restarted", "job": name},
                )
                await asyncio.sleep(_RESTART_SECONDS)
