"""Runs what goes on beside the requests, and neither lets it die quietly nor spin."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

logger = logging.getLogger(__name__)

_PAUSE_AFTER_DEFECT = 1.0


class Background:
    """Endless jobs; one that fails unexpectedly is logged and begun again."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, name: str, job: Callable[[], Awaitable[None]]) -> None:
        """Begin a job that ends only when it is cancelled."""
        self._tasks.append(asyncio.create_task(self._keep_running(name, job), name=name))

    async def stop(self) -> None:
        """Cancel all jobs and wait until they have let go."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _keep_running(self, name: str, job: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await job()
            except Exception:
                logger.exception("a background job failed and begins again", extra={"job": name})
                await asyncio.sleep(_PAUSE_AFTER_DEFECT)
