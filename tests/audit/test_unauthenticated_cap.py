"""The cap on audit records of unauthenticated clients, and the summary records."""

import pytest

from broker.audit.trail import AuditTrail
from broker.audit.unauthenticated_cap import (
    MAX_USERS,
    MINUTE_SECONDS,
    RECORDS_PER_MINUTE,
    RECORDS_PER_USER_PER_MINUTE,
)
from broker.database.database import Database
from broker.telemetry.metrics import Metrics
from tests.support.audit import KEYS
from tests.support.clock import ManualClock

CAPACITY = 2000


class Stopwatch:
    """A monotonic clock that the test moves by hand."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def stopwatch() -> Stopwatch:
    return Stopwatch()


@pytest.fixture
def trail(
    database: Database, clock: ManualClock, metrics: Metrics, stopwatch: Stopwatch
) -> AuditTrail:
    return AuditTrail(database, clock, metrics, KEYS, capacity=CAPACITY, monotonic=stopwatch)


def record_unauthenticated(trail: AuditTrail, count: int, outcome: str = "unauthenticated") -> None:
    for _ in range(count):
        trail.record(action="request_refused", outcome=outcome, unauthenticated=True)


async def outcomes(database: Database) -> dict[str, int]:
    rows = await database.fetch("SELECT outcome, count(*) FROM audit_events GROUP BY outcome")
    return {row[0]: row[1] for row in rows}


async def test_up_to_the_limit_each_event_has_a_record(
    database: Database, trail: AuditTrail
) -> None:
    record_unauthenticated(trail, RECORDS_PER_MINUTE)
    await trail.flush(is_last=True)
    assert await outcomes(database) == {"unauthenticated": RECORDS_PER_MINUTE}


async def test_events_over_the_limit_are_summarised_after_the_minute(
    database: Database, trail: AuditTrail, metrics: Metrics, stopwatch: Stopwatch
) -> None:
    record_unauthenticated(trail, RECORDS_PER_MINUTE + 5000)
    record_unauthenticated(trail, 7, "issuer_unavailable")
    await trail.flush()
    assert await outcomes(database) == {"unauthenticated": RECORDS_PER_MINUTE}
    stopwatch.now += MINUTE_SECONDS
    for _ in range(3):
        await trail.flush()
    assert await outcomes(database) == {
        "unauthenticated": RECORDS_PER_MINUTE,
        "not_recorded:5000:unauthenticated": 1,
        "not_recorded:7:issuer_unavailable": 1,
    }
    left_out = metrics.registry.get_sample_value("broker_audit_records_left_out_total")
    assert left_out == 5007


async def test_each_action_has_its_own_limit(database: Database, trail: AuditTrail) -> None:
    for _ in range(1000):
        trail.record(action="security_event", outcome="refused:malformed", unauthenticated=True)
    record_unauthenticated(trail, 3)
    await trail.flush()
    assert await outcomes(database) == {
        "refused:malformed": RECORDS_PER_MINUTE,
        "unauthenticated": 3,
    }


async def test_each_minute_has_its_own_limit_and_summary(
    database: Database, trail: AuditTrail, stopwatch: Stopwatch
) -> None:
    for count in (1, 2, 3):
        record_unauthenticated(trail, RECORDS_PER_MINUTE + count)
        stopwatch.now += MINUTE_SECONDS
        # The first event of the next minute ends the previous one.
        record_unauthenticated(trail, 1)
        await trail.flush()
        stopwatch.now += MINUTE_SECONDS
        await trail.flush()
    assert await outcomes(database) == {
        "unauthenticated": 3 * (RECORDS_PER_MINUTE + 1),
        **{f"not_recorded:{count}:unauthenticated": 1 for count in (1, 2, 3)},
    }


async def test_the_last_flush_summarises_the_current_minute(
    database: Database, trail: AuditTrail
) -> None:
    record_unauthenticated(trail, RECORDS_PER_MINUTE + 9)
    await trail.flush(is_last=True)
    assert (await outcomes(database))["not_recorded:9:unauthenticated"] == 1


async def test_refusals_of_known_callers_are_not_capped(
    database: Database, trail: AuditTrail
) -> None:
    for _ in range(300):
        record_unauthenticated(trail, 10)
        trail.record(action="request_refused", outcome="forbidden", caller="calendar-sync")
    await trail.flush()
    assert await outcomes(database) == {"unauthenticated": RECORDS_PER_MINUTE, "forbidden": 300}


async def test_the_summary_waits_while_the_buffer_is_full(
    database: Database, trail: AuditTrail, stopwatch: Stopwatch
) -> None:
    for _ in range(CAPACITY):
        trail.record(action="token", outcome="ok")
    record_unauthenticated(trail, 5)
    stopwatch.now += MINUTE_SECONDS
    await trail.flush()
    await trail.flush()
    assert await outcomes(database) == {"ok": CAPACITY, "not_recorded:5:unauthenticated": 1}


def record_with_link(
    trail: AuditTrail, count: int, user_id: str, outcome: str = "refused:used"
) -> None:
    for _ in range(count):
        trail.record(
            action="consent",
            outcome=outcome,
            caller="product",
            user_id=user_id,
            unauthenticated=True,
        )


async def rows(database: Database) -> set[tuple[str, str, str | None, int]]:
    found = await database.fetch(
        "SELECT outcome, caller, user_id, count(*) FROM audit_events GROUP BY 1, 2, 3"
    )
    return {tuple(row) for row in found}


async def test_events_with_a_users_links_are_capped_per_user(
    database: Database, trail: AuditTrail, stopwatch: Stopwatch
) -> None:
    record_with_link(trail, 3000, "ada")
    record_with_link(trail, RECORDS_PER_USER_PER_MINUTE, "bob")
    record_with_link(trail, 1, "ada", "declined")
    stopwatch.now += MINUTE_SECONDS
    await trail.flush()
    left_out = 3000 - RECORDS_PER_USER_PER_MINUTE
    assert await rows(database) == {
        ("refused:used", "product", "ada", RECORDS_PER_USER_PER_MINUTE),
        (f"not_recorded:{left_out}:refused:used", "product", "ada", 1),
        ("refused:used", "product", "bob", RECORDS_PER_USER_PER_MINUTE),
        ("declined", "product", "ada", 1),
    }


async def test_beyond_the_maximum_number_of_users_events_are_counted_per_caller(
    database: Database, trail: AuditTrail, stopwatch: Stopwatch
) -> None:
    for number in range(MAX_USERS):
        record_with_link(trail, 1, f"user-{number}")
        if number % 100 == 0:
            await trail.flush()
    await trail.flush()
    for number in range(500):
        record_with_link(trail, 1, f"excess-{number}")
    stopwatch.now += MINUTE_SECONDS
    await trail.flush()
    left_out = 500 - RECORDS_PER_USER_PER_MINUTE
    assert (f"not_recorded:{left_out}:refused:used", "product", None, 1) in await rows(database)
    assert len(await rows(database)) == MAX_USERS + RECORDS_PER_USER_PER_MINUTE + 1


async def test_with_a_full_buffer_events_are_counted_per_caller(
    database: Database, trail: AuditTrail, stopwatch: Stopwatch
) -> None:
    for _ in range(CAPACITY):
        trail.record(action="token", outcome="ok")
    for number in range(3):
        record_with_link(trail, 1, f"user-{number}")
    stopwatch.now += MINUTE_SECONDS
    await trail.flush()
    await trail.flush()
    assert ("not_recorded:3:refused:used", "product", None, 1) in await rows(database)
