"""What goes on beside the requests: rounds, watchers, and how they end."""

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest

from broker import background as background_module
from broker.background import Background
from broker.database.database import StorageUnavailable

SOON = 0.001
NEVER = 3600.0


@pytest.fixture
async def background() -> AsyncIterator[Background]:
    background = Background()
    yield background
    await background.stop()


class Job:
    """Counts its rounds, and fails as told."""

    def __init__(self, *failures: Exception | None) -> None:
        self.rounds = 0
        self._failures = list(failures)
        self._changed = asyncio.Condition()

    async def __call__(self) -> None:
        async with self._changed:
            self.rounds += 1
            self._changed.notify_all()
        failure = self._failures.pop(0) if self._failures else None
        if failure is not None:
            raise failure

    async def reached(self, rounds: int) -> None:
        async with asyncio.timeout(5), self._changed:
            await self._changed.wait_for(lambda: self.rounds >= rounds)


async def test_a_job_is_done_at_once_and_again_and_again(background: Background) -> None:
    job = Job()
    background.every(SOON, "job", job)
    await job.reached(5)


async def test_a_job_waits_for_its_time(background: Background) -> None:
    often, seldom = Job(), Job()
    background.every(NEVER, "seldom", seldom)
    background.every(SOON, "often", often)
    await often.reached(20)
    assert seldom.rounds == 1


async def test_a_job_can_be_woken_early(background: Background) -> None:
    job, wake = Job(), asyncio.Event()
    background.every(NEVER, "job", job, wake=wake)
    for rounds in range(1, 5):
        await job.reached(rounds)
        wake.set()
    await job.reached(5)


async def test_waking_during_a_round_brings_another(background: Background) -> None:
    wake, rounds, done = asyncio.Event(), 0, asyncio.Event()

    async def job() -> None:
        nonlocal rounds
        rounds += 1
        if rounds == 1:
            wake.set()
        else:
            done.set()

    background.every(NEVER, "job", job, wake=wake)
    async with asyncio.timeout(5):
        await done.wait()


async def test_a_round_is_skipped_quietly_while_storage_is_away(
    background: Background, caplog: pytest.LogCaptureFixture
) -> None:
    job = Job(StorageUnavailable("away"), StorageUnavailable("away"))
    background.every(SOON, "job", job)
    await job.reached(4)
    assert [r for r in caplog.records if r.levelno > logging.DEBUG] == []


async def test_a_job_that_fails_is_logged_and_done_again(
    background: Background, caplog: pytest.LogCaptureFixture
) -> None:
    job = Job(RuntimeError("broken"), None, ValueError("again"))
    background.every(SOON, "nightly", job)
    await job.reached(5)
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [vars(record)["job"] for record in errors] == ["nightly", "nightly"]


async def test_one_failing_job_holds_up_no_other(background: Background) -> None:
    good = Job()
    background.every(SOON, "bad", Job(*(RuntimeError() for _ in range(1000))))
    background.every(SOON, "good", good)
    await good.reached(10)


async def test_stop_lets_a_round_end() -> None:
    background, begun, go_on = Background(), asyncio.Event(), asyncio.Event()
    ended: list[str] = []

    async def job() -> None:
        begun.set()
        await go_on.wait()
        ended.append("in peace")

    background.every(NEVER, "job", job)
    await begun.wait()
    stop = asyncio.create_task(background.stop())
    await asyncio.sleep(0)
    assert not stop.done()
    go_on.set()
    await stop
    assert ended == ["in peace"]


async def test_no_round_begins_after_stop() -> None:
    background, job = Background(), Job()
    background.every(SOON, "job", job)
    await job.reached(2)
    await background.stop()
    rounds = job.rounds
    await asyncio.sleep(20 * SOON)
    assert job.rounds == rounds


async def test_stop_does_not_wait_for_the_next_round() -> None:
    background, job = Background(), Job()
    background.every(NEVER, "job", job)
    await job.reached(1)
    async with asyncio.timeout(2):
        await background.stop()


async def test_a_round_that_never_ends_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background_module, "_LAST_ROUND_SECONDS", 0.05)
    background, begun, cancelled = Background(), asyncio.Event(), asyncio.Event()

    async def job() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    background.every(NEVER, "job", job)
    await begun.wait()
    async with asyncio.timeout(2):
        await background.stop()
    assert cancelled.is_set()


async def test_a_watcher_that_fails_is_logged_and_begins_again(
    background: Background, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(background_module, "_PAUSE_AFTER_DEFECT", SOON)
    again = asyncio.Event()
    failures = [RuntimeError("broken"), StorageUnavailable("away")]

    async def watcher() -> None:
        if failures:
            raise failures.pop()
        again.set()
        await asyncio.Event().wait()

    background.watch("watcher", watcher)
    async with asyncio.timeout(5):
        await again.wait()
    assert [vars(record)["job"] for record in caplog.records] == ["watcher", "watcher"]


async def test_a_watcher_pauses_before_it_begins_again(
    background: Background, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background_module, "_PAUSE_AFTER_DEFECT", NEVER)
    begun = Job(*(RuntimeError() for _ in range(1000)))
    steady = Job()
    background.watch("watcher", begun)
    background.every(SOON, "steady", steady)
    await steady.reached(20)
    assert begun.rounds == 1


async def test_stop_ends_a_watcher_at_once() -> None:
    background, begun = Background(), asyncio.Event()

    async def watcher() -> None:
        begun.set()
        await asyncio.Event().wait()

    background.watch("watcher", watcher)
    await begun.wait()
    async with asyncio.timeout(2):
        await background.stop()


async def test_stop_with_nothing_to_do_is_fine() -> None:
    await Background().stop()
