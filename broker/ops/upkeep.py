"""Counts and cleans, now and then: the gauge of grants, and what has expired.

Each chore runs, and fails, on its own: a defect in one starves none of the others.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping

from broker.database.database import StorageBusy, StorageContended, StorageUnavailable
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
        for name in self._chores:
            metrics.upkeep_failures.labels(name)
        self._order = list(self._chores)
        self._failing: set[str] = set()
        self._met_outage: set[str] = set()
        """In the round before this one."""

    async def round(self) -> None:
        """Do every chore once, one after another.

        One that fails is logged and counted once, and again only after it worked in between.
        Storage that is away, or somebody else's lock in it, counts as the chore's failure if it was
        so in the round before, too: an outage may begin or end in the midst of a round. All
        connections in use never does.

        Raises `StorageUnavailable` when nothing could be done at all, and as soon as two chores in
        a row found storage away: that is no chore's fault. The next round begins with those that
        were not tried.
        """
        failures = await self._try_all()
        outages: dict[str, StorageUnavailable] = {}
        for name, error in failures.items():
            if isinstance(error, StorageUnavailable):
                outages[name] = error
            else:
                self._note(name, error)
        if len(outages) == len(failures) or len(failures) < len(self._order):
            not_tried = [name for name in self._order if name not in failures]
            self._order = [*not_tried, *failures]
            self._met_outage = set()
            raise next(reversed(outages.values()))
        self._note_outages(
            {
                name: error
                for name, error in outages.items()
                if _is_away(error) or isinstance(error, StorageContended)
            }
        )

    async def _try_all(self) -> Mapping[str, Exception | None]:
        """How each chore failed, up to the second in a row for which storage was away."""
        failures: dict[str, Exception | None] = {}
        was_away = False
        for name in self._order:
            failures[name] = await _failure(self._chores[name])
            is_away = _is_away(failures[name])
            if is_away and was_away:
                break
            was_away = is_away
        return failures

    def _note_outages(self, outages: Mapping[str, StorageUnavailable]) -> None:
        for name, error in outages.items():
            if name in self._met_outage:
                self._note(name, error)
        self._met_outage = set(outages)

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


def _is_away(error: Exception | None) -> bool:
    return isinstance(error, StorageUnavailable) and not isinstance(error, StorageBusy)


async def _failure(chore: Chore) -> Exception | None:
    try:
        await chore()
    except Exception as error:
        return error
    return None
