"""Jobs that each replica runs every 15 seconds: purges, backfills and the count of grants.

Each job runs, and fails, on its own: a defect in one does not delay the others.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

from prometheus_client import Counter

from broker.database.database import StorageBusy, StorageContended, StorageUnavailable
from broker.grants.store import GrantStore
from broker.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

EVERY_SECONDS = 15.0

Job = Callable[[], Awaitable[None]]


class PeriodicJobs:
    """Named jobs that run one after another."""

    def __init__(self, failures: Counter, jobs: Mapping[str, Job]) -> None:
        """`failures` counts by the job's name, which the log shows too."""
        self._failures = failures
        self._jobs = jobs
        for name in jobs:
            failures.labels(name)
        self._order = list(jobs)
        self._failing: set[str] = set()
        self._met_outage: set[str] = set()
        """Jobs that found storage unavailable in the run before this one."""

    async def run_all(self) -> None:
        """Run every job once.

        A failure is logged and counted once, and again only after the job has worked in between.
        An outage of storage, or a lock held elsewhere, counts as the job's failure if the job met
        it in the run before, too: an outage may begin or end during a run. A pool without a free
        connection never counts.

        Raises `StorageUnavailable` when every job met an outage, and as soon as two jobs in a row
        do: that is no job's fault. The next run begins with the jobs that were not tried.
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
                if _is_outage(error) or isinstance(error, StorageContended)
            }
        )

    async def _try_all(self) -> Mapping[str, Exception | None]:
        """Return each job's failure, up to the second outage in a row."""
        failures: dict[str, Exception | None] = {}
        was_outage = False
        for name in self._order:
            failures[name] = await _failure(self._jobs[name])
            is_outage = _is_outage(failures[name])
            if is_outage and was_outage:
                break
            was_outage = is_outage
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
                logger.info(
                    "periodic job works again",
                    extra={"event": "periodic_job_recovered", "job": name},
                )
        elif name not in self._failing:
            self._failing.add(name)
            self._failures.labels(name).inc()
            logger.error(
                "periodic job failed; it is retried every 15 s",
                extra={"event": "periodic_job_failed", "job": name},
                exc_info=error,
            )


def count_grants(grants: GrantStore, metrics: Metrics) -> Job:
    """Return the job that sets the gauge of grants by status."""
    return partial(_count_grants, grants, metrics)


async def _count_grants(grants: GrantStore, metrics: Metrics) -> None:
    for status, count in (await grants.count_by_status()).items():
        metrics.grants.labels(status.value).set(count)


def _is_outage(error: Exception | None) -> bool:
    return isinstance(error, StorageUnavailable) and not isinstance(error, StorageBusy)


async def _failure(job: Job) -> Exception | None:
    try:
        await job()
    except Exception as error:
        return error
    return None
