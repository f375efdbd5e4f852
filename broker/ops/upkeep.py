"""Counts and cleans, now and then: the gauge of grants, and what has expired."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from broker.database.database import StorageUnavailable
from broker.grants.store import GrantStore
from broker.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

_EVERY_SECONDS = 15.0


class Upkeep:
    """One round every 15 seconds; what can't be done while storage is away waits for the next."""

    def __init__(
        self,
        *,
        grants: GrantStore,
        metrics: Metrics,
        purges: Sequence[Callable[[], Awaitable[None]]] = (),
    ) -> None:
        self._grants = grants
        self._metrics = metrics
        self._purges = purges

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self._round()
            except StorageUnavailable as error:
                logger.debug("upkeep waits: storage is away", extra={"reason": str(error)})
            await asyncio.sleep(_EVERY_SECONDS)

    async def _round(self) -> None:
        for status, count in (await self._grants.count_by_status()).items():
            self._metrics.grants.labels(status.value).set(count)
        for purge in self._purges:
            await purge()
