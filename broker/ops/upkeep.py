"""Counts and cleans, now and then: the gauge of grants, and what has expired."""

from collections.abc import Awaitable, Callable, Sequence

from broker.grants.store import GrantStore
from broker.telemetry.metrics import Metrics

EVERY_SECONDS = 15.0


class Upkeep:
    """What is done every 15 seconds."""

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

    async def round(self) -> None:
        """Count and clean once. Raises `StorageUnavailable`."""
        for status, count in (await self._grants.count_by_status()).items():
            self._metrics.grants.labels(status.value).set(count)
        for purge in self._purges:
            await purge()
