"""Background jobs: intervals, failures, restarts, and the stop."""

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest

from broker import background as background_module
from broker.background import BackgroundJobs
from broker.database.database import StorageUnavailable

SOON = 0.001
NEVER = 3600.0


@pytest.fixture
async def jobs() -> AsyncIterator[BackgroundJobs]:
    jobs = BackgroundJobs()
    yield jobs
    await jobs.stop()


class ScriptedJob:
    """Counts its runs; the first ones fail with `failures`."""

    def __init__(self, *failures: Exception | None) -> None:
        self.runs = 0
        self._failures = list(failures)
        self._changed = asyncio.Condition()

    async def __call__(self) -> None:
        async with self._changed:
            self.runs += 1
            self._changed.notify_all()
        failure = self._failures.pop(0) if self._failures else None
        if failure is not None:
            raise failure

    async def reached(self, runs: int) -> None:
        async with asyncio.timeout(5), self._changed:
            await self._changed.wait_for(lambda: self.runs >= runs)


async def test_a_job_runs_immediately_and_then_at_each_interval(jobs: BackgroundJobs) -> None:
    job = ScriptedJob()
    jobs.every(SOON, "job", job)
    await job.reached(5)


async def test_a_job_waits_for_its_interval(jobs: BackgroundJobs) -> None:
    often, seldom = ScriptedJob(), ScriptedJob()
    jobs.every(NEVER, "seldom", seldom)
    jobs.every(SOON, "often", often)
    await often.reached(20)
    assert seldom.runs == 1


async def test_a_job_can_be_woken_early(jobs: BackgroundJobs) -> None:
    job, wake = ScriptedJob(), asyncio.Event()
    jobs.every(NEVER, "job", job, wake=wake)
    for runs in range(1, 5):
        await job.reached(runs)
        wake.set()
    await job.reached(5)


async def test_waking_a_job_during_a_run_starts_another_run(jobs: BackgroundJobs) -> None:
    wake, runs, done = asyncio.Event(), 0, asyncio.Event()

    async def job() -> None:
        nonlocal runs
        runs += 1
        if runs == 1:
            wake.set()
        else:
            done.set()

    jobs.every(NEVER, "job", job, wake=wake)
    async with asyncio.timeout(5):
        await done.wait()


async def test_a_run_is_skipped_without_a_warning_while_storage_is_unavailable(
    jobs: BackgroundJobs, caplog: pytest.LogCaptureFixture
) -> None:
    job = ScriptedJob(
        StorageUnavailable("connection refused"), StorageUnavailable("connection refused")
    )
    jobs.every(SOON, "job", job)
    await job.reached(4)
    assert [r for r in caplog.records if r.levelno > logging.DEBUG] == []


async def test_a_failed_job_is_logged_and_runs_again(
    jobs: BackgroundJobs, caplog: pytest.LogCaptureFixture
) -> None:
    job = ScriptedJob(RuntimeError("broken"), None, ValueError("again"))
    jobs.every(SOON, "nightly", job)
    await job.reached(5)
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [vars(record)["job"] for record in errors] == ["nightly", "nightly"]
    assert {vars(record)["event"] for record in errors} == {"background_job_failed"}


async def test_a_failing_job_does_not_delay_the_others(jobs: BackgroundJobs) -> None:
    good = ScriptedJob()
    jobs.every(SOON, "bad", ScriptedJob(*(RuntimeError() for _ in range(1000))))
    jobs.every(SOON, "good", good)
    await good.reached(10)


async def test_stop_lets_a_run_finish() -> None:
    jobs, begun, go_on = BackgroundJobs(), asyncio.Event(), asyncio.Event()
    finished: list[str] = []

    async def job() -> None:
        begun.set()
        await go_on.wait()
        finished.append("yes")

    jobs.every(NEVER, "job", job)
    await begun.wait()
    stop = asyncio.create_task(jobs.stop())
    await asyncio.sleep(0)
    assert not stop.done()
    go_on.set()
    await stop
    assert finished == ["yes"]


async def test_no_run_starts_after_stop() -> None:
    jobs, job = BackgroundJobs(), ScriptedJob()
    jobs.every(SOON, "job", job)
    await job.reached(2)
    await jobs.stop()
    runs = job.runs
    await asyncio.sleep(20 * SOON)
    assert job.runs == runs


async def test_stop_does_not_wait_for_the_next_run() -> None:
    jobs, job = BackgroundJobs(), ScriptedJob()
    jobs.every(NEVER, "job", job)
    await job.reached(1)
    async with asyncio.timeout(2):
        await jobs.stop()


async def test_stop_cancels_a_run_that_does_not_finish(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background_module, "_LAST_RUN_SECONDS", 0.05)
    jobs, begun, cancelled = BackgroundJobs(), asyncio.Event(), asyncio.Event()

    async def job() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    jobs.every(NEVER, "job", job)
    await begun.wait()
    async with asyncio.timeout(2):
        await jobs.stop()
    assert cancelled.is_set()


async def test_a_failed_permanent_job_is_logged_and_restarted(
    jobs: BackgroundJobs, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(background_module, "_RESTART_SECONDS", SOON)
    again = asyncio.Event()
    failures = [RuntimeError("broken"), StorageUnavailable("connection refused")]

    async def permanent() -> None:
        if failures:
            raise failures.pop()
        again.set()
        await asyncio.Event().wait()

    jobs.keep_running("permanent", permanent)
    async with asyncio.timeout(5):
        await again.wait()
    assert [vars(record)["job"] for record in caplog.records] == ["permanent", "permanent"]
    assert {vars(record)["event"] for record in caplog.records} == {"background_job_restarted"}


async def test_a_permanent_job_restarts_after_a_pause(
    jobs: BackgroundJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background_module, "_RESTART_SECONDS", NEVER)
    failing = ScriptedJob(*(RuntimeError() for _ in range(1000)))
    steady = ScriptedJob()
    jobs.keep_running("permanent", failing)
    jobs.every(SOON, "steady", steady)
    await steady.reached(20)
    assert failing.runs == 1


async def test_stop_cancels_a_permanent_job() -> None:
    jobs, begun = BackgroundJobs(), asyncio.Event()

    async def permanent() -> None:
        begun.set()
        await asyncio.Event().wait()

    jobs.keep_running("permanent", permanent)
    await begun.wait()
    async with asyncio.timeout(2):
        await jobs.stop()


async def test_stop_without_jobs() -> None:
    await BackgroundJobs().stop()
