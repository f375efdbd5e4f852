"""A PostgreSQL that hangs delays hardly any call, and its recovery is detected."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager

import pytest

from broker.database import failure_detector
from broker.database.database import Database, StorageUnavailable
from broker.database.failure_detector import (
    PROBE_SECONDS,
    SUSPECT_AFTER_SECONDS,
    FailureDetector,
)
from broker.secret import Secret
from tests.support.lossy_link import LossyLink, lossy_link

DETECTION_SECONDS = 20 * (SUSPECT_AFTER_SECONDS + PROBE_SECONDS)
"""From the first read until the failure is detected, on a very slow machine."""

LONG_SECONDS = 2 * DETECTION_SECONDS


@pytest.fixture
async def linked(database_url: str) -> AsyncIterator[tuple[LossyLink, Database]]:
    async with _linked(database_url) as both:
        yield both


@asynccontextmanager
async def _linked(url: str, **changes: float) -> AsyncIterator[tuple[LossyLink, Database]]:
    async with lossy_link(url) as (link, address):
        database = Database(Secret(address), max_connections=3, **changes)  # type: ignore[arg-type]
        await database.open()
        try:
            yield link, database
        finally:
            await database.close()


async def _seconds_until_failure(query: Awaitable[object]) -> float:
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(StorageUnavailable):
        await query
    return loop.time() - began


async def _hang(link: LossyLink, database: Database) -> None:
    """Return once the failure is detected."""
    link.cut()
    await _seconds_until_failure(database.read("SELECT 1"))


async def _seconds_until_back(database: Database) -> float:
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with asyncio.timeout(LONG_SECONDS):
        while True:
            try:
                await database.read("SELECT 1")
            except StorageUnavailable:
                await asyncio.sleep(0.02)
            else:
                return loop.time() - began


async def test_all_reads_under_way_end_together(database_url: str) -> None:
    times_out = {"command_seconds": LONG_SECONDS, "connect_seconds": LONG_SECONDS}
    async with _linked(database_url, **times_out) as (link, database):
        link.cut()
        reads = [_seconds_until_failure(database.read("SELECT 1")) for _ in range(20)]
        assert max(await asyncio.gather(*reads)) < DETECTION_SECONDS


async def test_while_the_server_hangs_all_calls_fail_immediately(
    linked: tuple[LossyLink, Database],
) -> None:
    link, database = linked
    await _hang(link, database)
    for query in (database.read, database.execute, database.fetchval):
        # It fails before its first await.
        with pytest.raises(StorageUnavailable):
            query("SELECT 1").send(None)
    assert database.was_unavailable_within(5)


async def test_a_write_under_way_keeps_its_own_timeout(database_url: str) -> None:
    async with _linked(database_url, command_seconds=LONG_SECONDS) as (link, database):
        await asyncio.gather(*(database.ping() for _ in range(3)))
        link.cut()
        write = asyncio.create_task(database.execute("SELECT 1"))
        await asyncio.sleep(0)
        assert await _seconds_until_failure(database.read("SELECT 1")) < DETECTION_SECONDS
        assert not write.done()
        link.heal()
        assert await write == "SELECT 1"


async def test_a_transaction_waits_no_longer_than_its_statement(database_url: str) -> None:
    async with _linked(database_url, command_seconds=4) as (link, database):

        async def change() -> None:
            async with database.transaction() as connection:
                link.cut()
                await connection.execute("SELECT 1")

        # Waiting for the rollback as well would take as long again.
        assert await _seconds_until_failure(change()) < 7.9


async def test_a_server_that_was_only_delayed_is_found_again_soon(
    linked: tuple[LossyLink, Database],
) -> None:
    link, database = linked
    await _hang(link, database)
    link.heal()
    assert await _seconds_until_back(database) < DETECTION_SECONDS


async def test_a_server_that_lost_all_connections_is_found_again_soon(
    linked: tuple[LossyLink, Database],
) -> None:
    link, database = linked
    await _hang(link, database)
    link.heal_with_reset()
    assert await _seconds_until_back(database) < DETECTION_SECONDS
    for _ in range(5):
        await database.ping()


async def test_a_server_that_refuses_after_it_hung_does_not_hang(
    database_url: str,
) -> None:
    async with lossy_link(database_url) as (link, address):
        database = Database(Secret(address))
        await database.open()
        await _hang(link, database)
        link.heal_with_reset()
    # The link is closed: nothing listens on its port.
    async with asyncio.timeout(5):
        while database.is_suspected:  # noqa: ASYNC110  (it sends no event)
            await asyncio.sleep(0.02)
    with pytest.raises(StorageUnavailable, match=r"Refused|OSError"):
        await database.read("SELECT 1")
    await database.close()


async def test_reads_wait_for_a_slow_server(linked: tuple[LossyLink, Database]) -> None:
    _, database = linked
    wait = PROBE_SECONDS + SUSPECT_AFTER_SECONDS + 0.3
    assert [row["b"] for row in await database.read(f"SELECT 1 AS b FROM pg_sleep({wait})")] == [1]
    assert not database.was_unavailable_within(60)


async def test_a_read_with_a_shorter_timeout_fails_sooner(
    linked: tuple[LossyLink, Database],
) -> None:
    _, database = linked
    # Without it, the read would fail after the five seconds of a statement.
    read = database.read("SELECT pg_sleep(60)", timeout_seconds=0.1)
    assert await _seconds_until_failure(read) < 4


async def test_closing_does_not_wait_for_a_server_that_hangs(database_url: str) -> None:
    async with lossy_link(database_url) as (link, address):
        database = Database(Secret(address))
        await database.open()
        await _hang(link, database)
        async with asyncio.timeout(2.5):
            await database.close()


async def test_a_server_that_answers_other_connections_has_not_failed(database_url: str) -> None:
    """No new connection opens in time, as if this process lacked CPU; open ones work."""
    async with _linked(database_url, command_seconds=LONG_SECONDS) as (link, database):
        await asyncio.gather(*(database.ping() for _ in range(3)))
        link.hold_new_connections()
        wait = PROBE_SECONDS + SUSPECT_AFTER_SECONDS + 2
        slow = asyncio.create_task(database.read(f"SELECT 1 AS b FROM pg_sleep({wait})"))
        suspected = False
        while not slow.done():
            await database.ping()
            suspected |= database.is_suspected
            await asyncio.sleep(0.02)
        assert [row["b"] for row in await slow] == [1]
        assert suspected
        assert not database.was_unavailable_within(60)


# ---- the detector itself, without a database


class Probe:
    """Answers as the list says, then as its last entry."""

    def __init__(self, *answers: Exception | None) -> None:
        self._answers = list(answers)
        self.count = 0

    async def __call__(self) -> None:
        self.count += 1
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if answer is not None:
            raise answer


@pytest.fixture
def failures(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What `on_failure` adds to; probes follow each other without an interval."""
    monkeypatch.setattr(failure_detector, "_PROBE_INTERVAL_SECONDS", 0)
    return []


async def _until_decided(detector: FailureDetector) -> None:
    while detector.is_suspected:  # noqa: ASYNC110  (it sends no event)
        await asyncio.sleep(0)


@pytest.mark.parametrize("answer", [None, ConnectionRefusedError(), ValueError()])
async def test_any_answer_to_a_probe_is_no_failure(
    answer: Exception | None, failures: list[str]
) -> None:
    detector = FailureDetector(Probe(answer), on_failure=lambda: failures.append("failed"))
    detector.suspect()
    assert detector.is_suspected
    await _until_decided(detector)
    assert (detector.has_failed, failures) == (False, [])


async def test_a_failure_lasts_until_a_probe_is_answered(
    failures: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    probe = Probe(TimeoutError(), TimeoutError(), None)
    detector = FailureDetector(probe, on_failure=lambda: failures.append(str(probe.count)))
    detector.suspect()
    await _until_decided(detector)
    assert (detector.has_failed, failures, probe.count) == (False, ["1"], 3)
    assert [vars(record)["event"] for record in caplog.records] == [
        "postgres_unresponsive",
        "postgres_recovered",
    ]


async def test_an_answer_to_another_query_during_the_probe_is_no_failure(
    failures: list[str],
) -> None:
    async def probe() -> None:
        detector.note_answer()
        raise TimeoutError

    detector = FailureDetector(probe, on_failure=lambda: failures.append("failed"))
    detector.suspect()
    await _until_decided(detector)
    assert (detector.has_failed, failures) == (False, [])


async def test_one_probe_runs_at_a_time_and_none_after_close(failures: list[str]) -> None:
    probe = Probe(None)
    detector = FailureDetector(probe, on_failure=lambda: failures.append("failed"))
    detector.suspect()
    detector.suspect()
    await _until_decided(detector)
    await detector.close()
    detector.suspect()
    assert (probe.count, detector.is_suspected) == (1, False)
