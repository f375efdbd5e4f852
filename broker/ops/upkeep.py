"""Counts and cleans, now and then: the gauge of grants, and what has expired.

Each chore runs, and fails, on its own: a defect in one starves none of the others.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping

from broker.database.database import StorageUnavailable
from broker.grants.store import GrantStore
from broker.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

EVERY_SECONDS = 15.0

Chore = Callable[[], Awaitable[None]]


class Upkeep:
    """What is done every 15 seconds."""

    def __init__(
        self, *, grants: GrantStore, metrics: Metrics, purges: Mapping[str, Chore]
    ) -> None:
        """`purges` by names that the log and a metric's label tell."""
        self._grants = grants
        self._metrics = metrics
        self._chores: Mapping[str, Chore] = {"count grants": self._count_grants, **purges}
        self._failing: set[str] = set()

    async def round(self) -> None:
        """Do every chore once, one after another.

        One that fails is logged and counted once, and again only after it worked in between.
        Raises `StorageUnavailable` when nothing could be done at all, which is no chore's fault.
        """
        failures = {name: await _failure(chore) for name, chore in self._chores.items()}
        aways = [error for error in failures.values() if isinstance(error, StorageUnavailable)]
        if len(aways) == len(failures):
            raise aways[0]
        for name, error in failures.items():
            self._note(name, error)

    def _note(self, name: str, error: Exception | None) -> None:
        if error is None:
            if name in self._failing:
                self._failing.remove(name)
                logger.info("a chore of the upkeep works again", extra={"chore": name})
        elif name not in self._failing:
            self._failing.add(name)
            self._metrics.upkeep_failures.labels(name).inc()
            logger.error(
                "a chore of the upkeep fails; it is tried again every round",
                extra={"chore": name},
                exc_info=error,
            )

    async def _count_grants(self) -> None:
        for status, count in (await self._grants.count_by_status()).items():
            self._metrics.grants.labels(status.value).set(count)


async def _failure(chore: Chore) -> Exception | None:
    try:
        await chore()
    except Exception as error:
        return error
    return None
