"""Periodic jobs: a failing job does not delay the others, and each failure is reported once."""

import logging
from collections.abc import AsyncIterator, Mapping

import pytest

from broker.crypto.sealing import Sealer, local_sealing_keys
from broker.database.database import (
    Database,
    StorageBusy,
    StorageContended,
    StorageUnavailable,
)
from broker.grants.store import GrantStore
from broker.ops.periodic_jobs import PeriodicJobs, count_grants
from broker.secret import Secret
from broker.telemetry.metrics import Metrics
from tests.support.clock import ManualClock


class ScriptedJob:
    """Fails with `failure`, if it is set, and counts its runs."""

    def __init__(self) -> None:
        self.runs = 0
        self.failure: Exception | None = None

    async def __call__(self) -> None:
        self.runs += 1
        if self.failure is not None:
            raise self.failure


Jobs = Mapping[str, ScriptedJob]


@pytest.fixture
async def store(database_url: str, clock: ManualClock) -> AsyncIterator[GrantStore]:
    database = Database(Secret(database_url))
    await database.open()
    sealer = Sealer(local_sealing_keys([Secret("a-key-" + "k" * 32)]))
    yield GrantStore(database, sealer, clock, keep_access_tokens=True)
    await database.close()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def scripted() -> Jobs:
    return {"first": ScriptedJob(), "second": ScriptedJob(), "last": ScriptedJob()}


@pytest.fixture
def jobs(metrics: Metrics, scripted: Jobs) -> PeriodicJobs:
    return PeriodicJobs(metrics.upkeep_failures, scripted)


def _failures(metrics: Metrics, job: str) -> float | None:
    return metrics.registry.get_sample_value("broker_upkeep_failures_total", {"chore": job})


def _failed(metrics: Metrics, scripted: Jobs) -> list[str]:
    return [name for name in scripted if _failures(metrics, name)]


def _runs(scripted: Jobs) -> list[int]:
    return [job.runs for job in scripted.values()]


def _set_outage(scripted: Jobs, *names: str) -> None:
    """Let these jobs, and no others, find storage unavailable."""
    for name, job in scripted.items():
        job.failure = StorageUnavailable("connection refused") if name in names else None


def test_every_job_has_a_counter_that_starts_at_zero(
    jobs: PeriodicJobs, scripted: Jobs, metrics: Metrics
) -> None:
    assert jobs is not None
    assert [_failures(metrics, name) for name in scripted] == [0, 0, 0]


@pytest.mark.parametrize("failure", [KeyError("a defect"), StorageUnavailable("a table's own")])
async def test_a_failing_job_does_not_delay_the_others(
    jobs: PeriodicJobs, scripted: Jobs, failure: Exception
) -> None:
    scripted["first"].failure = failure
    await jobs.run_all()
    assert _runs(scripted) == [1, 1, 1]


async def test_a_failing_count_of_grants_does_not_delay_the_other_jobs(
    store: GrantStore, scripted: Jobs, metrics: Metrics
) -> None:
    jobs = PeriodicJobs(
        metrics.upkeep_failures, {"count grants": count_grants(store, metrics), **scripted}
    )
    await store._database.execute("ALTER TABLE grants RENAME TO elsewhere")
    await jobs.run_all()
    assert _runs(scripted) == [1, 1, 1]
    assert _failures(metrics, "count grants") == 1


async def test_a_failure_is_logged_and_counted_once_until_the_job_works_again(
    jobs: PeriodicJobs,
    scripted: Jobs,
    metrics: Metrics,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    failing = scripted["second"]
    for failures in (1, 2):
        caplog.clear()
        failing.failure = KeyError("a defect")
        for _ in range(3):
            await jobs.run_all()
        (record,) = caplog.records
        assert record.levelno == logging.ERROR
        assert record.__dict__["event"] == "periodic_job_failed"
        assert (record.__dict__["job"], record.exc_info is not None) == ("second", True)
        assert _failures(metrics, "second") == failures
        failing.failure = None
        caplog.clear()
        await jobs.run_all()
        assert [each.__dict__["event"] for each in caplog.records] == ["periodic_job_recovered"]
    assert _failed(metrics, scripted) == ["second"]


async def test_an_outage_is_the_failure_of_no_job(
    jobs: PeriodicJobs, scripted: Jobs, metrics: Metrics
) -> None:
    _set_outage(scripted, *scripted)
    with pytest.raises(StorageUnavailable):
        await jobs.run_all()
    assert _failed(metrics, scripted) == []


async def test_an_outage_met_by_the_count_of_grants_is_not_its_failure(
    store: GrantStore, scripted: Jobs, metrics: Metrics
) -> None:
    jobs = PeriodicJobs(
        metrics.upkeep_failures, {"count grants": count_grants(store, metrics), **scripted}
    )
    await store._database.close()
    _set_outage(scripted, *scripted)
    with pytest.raises(StorageUnavailable):
        await jobs.run_all()
    assert [_failures(metrics, name) for name in (*scripted, "count grants")] == [0, 0, 0, 0]


async def test_an_outage_that_begins_or_ends_during_a_run_is_the_failure_of_no_job(
    jobs: PeriodicJobs,
    scripted: Jobs,
    metrics: Metrics,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for names in (["last"], ["first"], ["second", "last"], []):
        _set_outage(scripted, *names)
        await jobs.run_all()
    assert _failed(metrics, scripted) == []
    assert [record for record in caplog.records if record.levelno > logging.DEBUG] == []


async def test_a_job_that_alone_meets_an_outage_fails_in_the_second_run(
    jobs: PeriodicJobs, scripted: Jobs, metrics: Metrics
) -> None:
    _set_outage(scripted, "second")
    await jobs.run_all()
    assert _failed(metrics, scripted) == []
    for _ in range(2):
        await jobs.run_all()
    assert _failures(metrics, "second") == 1
    assert _failed(metrics, scripted) == ["second"]


async def test_a_pool_without_a_free_connection_is_the_failure_of_no_job(
    jobs: PeriodicJobs, scripted: Jobs, metrics: Metrics
) -> None:
    for name in ("first", "second"):
        scripted[name].failure = StorageBusy("no connection became free in time")
    for _ in range(3):
        await jobs.run_all()
    assert _failed(metrics, scripted) == []
    assert scripted["last"].runs == 3


async def test_a_run_ends_after_two_outages_in_a_row(
    jobs: PeriodicJobs, scripted: Jobs, metrics: Metrics
) -> None:
    _set_outage(scripted, "first", "second")
    with pytest.raises(StorageUnavailable):
        await jobs.run_all()
    assert _runs(scripted) == [1, 1, 0]
    assert _failed(metrics, scripted) == []


async def test_two_neighbours_that_keep_meeting_an_outage_fail_and_do_not_delay_the_others(
    jobs: PeriodicJobs, scripted: Jobs, metrics: Metrics
) -> None:
    _set_outage(scripted, "first", "second")
    with pytest.raises(StorageUnavailable):
        await jobs.run_all()
    for _ in range(2):
        await jobs.run_all()
    assert scripted["last"].runs == 2
    assert _failed(metrics, scripted) == ["first", "second"]


async def test_a_defect_is_reported_even_if_the_run_ends_early(
    metrics: Metrics, scripted: Jobs
) -> None:
    fourth = ScriptedJob()
    jobs = PeriodicJobs(metrics.upkeep_failures, {**scripted, "fourth": fourth})
    _set_outage(scripted, "second", "last")
    scripted["first"].failure = KeyError("a defect")
    with pytest.raises(StorageUnavailable):
        await jobs.run_all()
    assert fourth.runs == 0
    assert _failed(metrics, scripted) == ["first"]


async def test_a_job_that_waits_for_anothers_lock_fails_in_the_second_run(
    metrics: Metrics, scripted: Jobs
) -> None:
    jobs = PeriodicJobs(metrics.upkeep_failures, {**scripted, "fourth": ScriptedJob()})
    for job in scripted.values():
        job.failure = StorageContended("LockNotAvailableError")
    await jobs.run_all()
    assert _runs(scripted) == [1, 1, 1]
    assert _failed(metrics, scripted) == []
    await jobs.run_all()
    assert _failed(metrics, scripted) == list(scripted)
