"""However much strangers do, few records are theirs, and none of what they did is kept quiet."""

from collections.abc import AsyncIterator

import pytest

from broker.audit.trail import AuditTrail
from broker.audit.unauthenticated_cap import (
    MINUTE_SECONDS,
    RECORDED_A_MINUTE,
    RECORDED_OF_A_USER_A_MINUTE,
    USERS_AT_MOST,
)
from broker.database.database import Database
from broker.secret import Secret
from broker.telemetry.metrics import Metrics
from tests.support.audit import KEYS
from tests.support.clock import ManualClock

HELD = 2000


class Stopwatch:
    """Seconds that pass when the test says so."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def stopwatch() -> Stopwatch:
    return Stopwatch()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    opened = Database(Secret(database_url))
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
def trail(
    database: Database, clock: ManualClock, metrics: Metrics, stopwatch: Stopwatch
) -> AuditTrail:
    return AuditTrail(database, clock, metrics, KEYS, held_at_most=HELD, monotonic=stopwatch)


def strangers(trail: AuditTrail, count: int, outcome: str = "unauthenticated") -> None:
    for _ in range(count):
        trail.record(action="request_refused", outcome=outcome, from_stranger=True)


async def outcomes(database: Database) -> dict[str, int]:
    rows = await database.fetch("SELECT outcome, count(*) FROM audit_events GROUP BY outcome")
    return {row[0]: row[1] for row in rows}


async def test_few_strangers_have_a_record_each(database: Database, trail: AuditTrail) -> None:
    strangers(trail, RECORDED_A_MINUTE)
    await trail.flush(is_last=True)
    assert await outcomes(database) == {"unauthenticated": RECORDED_A_MINUTE}


async def test_of_many_the_rest_is_told_once_the_minute_is_over(
    database: Database, trail: AuditTrail, metrics: Metrics, stopwatch: Stopwatch
) -> None:
    strangers(trail, RECORDED_A_MINUTE + 5000)
    strangers(trail, 7, "issuer_unavailable")
    await trail.flush()
    assert await outcomes(database) == {"unauthenticated": RECORDED_A_MINUTE}
    stopwatch.now += MINUTE_SECONDS
    for _ in range(3):
        await trail.flush()
    assert await outcomes(database) == {
        "unauthenticated": RECORDED_A_MINUTE,
        "not_recorded:5000:unauthenticated": 1,
        "not_recorded:7:issuer_unavailable": 1,
    }
    left_out = metrics.registry.get_sample_value("broker_audit_records_left_out_total")
    assert left_out == 5007


async def test_a_flood_of_one_kind_of_deed_hides_no_other_kind(
    database: Database, trail: AuditTrail
) -> None:
    for _ in range(1000):
        trail.record(action="security_event", outcome="refused:malformed", from_stranger=True)
    strangers(trail, 3)
    await trail.flush()
    assert await outcomes(database) == {
        "refused:malformed": RECORDED_A_MINUTE,
        "unauthenticated": 3,
    }


async def test_every_minute_begins_anew(
    database: Database, trail: AuditTrail, stopwatch: Stopwatch
) -> None:
    for count in (1, 2, 3):
        strangers(trail, RECORDED_A_MINUTE + count)
        stopwatch.now += MINUTE_SECONDS
        # Whoever comes first in the next minute ends the one before.
        strangers(trail, 1)
        await trail.flush()
        stopwatch.now += MINUTE_SECONDS
        await trail.flush()
    assert await outcomes(database) == {
        "unauthenticated": 3 * (RECORDED_A_MINUTE + 1),
        **{f"not_recorded:{count}:unauthenticated": 1 for count in (1, 2, 3)},
    }


async def test_what_was_left_out_so_far_is_told_at_the_end(
    database: Database, trail: AuditTrail
) -> None:
    strangers(trail, RECORDED_A_MINUTE + 9)
    await trail.flush(is_last=True)
    assert (await outcomes(database))["not_recorded:9:unauthenticated"] == 1


async def test_no_flood_hides_what_a_known_caller_was_refused(
    database: Database, trail: AuditTrail
) -> None:
    for _ in range(300):
        strangers(trail, 10)
        trail.record(action="request_refused", outcome="forbidden", caller="calendar-sync")
    await trail.flush()
    assert await outcomes(database) == {"unauthenticated": RECORDED_A_MINUTE, "forbidden": 300}


async def test_while_all_room_is_taken_the_number_is_kept_for_later(
    database: Database, trail: AuditTrail, stopwatch: Stopwatch
) -> None:
    for _ in range(HELD):
        trail.record(action="token", outcome="ok")
    strangers(trail, 5)
    stopwatch.now += MINUTE_SECONDS
    await trail.flush()
    await trail.flush()
    assert await outcomes(database) == {"ok": HELD, "not_recorded:5:unauthenticated": 1}


def with_link(trail: AuditTrail, count: int, user_id: str, outcome: str = "refused:used") -> None:
    for _ in range(count):
        trail.record(
            action="consent",
            outcome=outcome,
            caller="product",
            user_id=user_id,
            from_stranger=True,
        )


async def rows(database: Database) -> set[tuple[str, str, str | None, int]]:
    found = await database.fetch(
        "SELECT outcome, caller, user_id, count(*) FROM audit_events GROUP BY 1, 2, 3"
    )
    return {tuple(row) for row in found}


async def test_who_has_a_link_has_a_few_records_and_then_a_number(
    database: Database, trail: AuditTrail, stopwatch: Stopwatch
) -> None:
    with_link(trail, 3000, "ada")
    with_link(trail, RECORDED_OF_A_USER_A_MINUTE, "bob")
    with_link(trail, 1, "ada", "declined")
    stopwatch.now += MINUTE_SECONDS
    await trail.flush()
    left_out = 3000 - RECORDED_OF_A_USER_A_MINUTE
    assert await rows(database) == {
        ("refused:used", "product", "ada", RECORDED_OF_A_USER_A_MINUTE),
        (f"not_recorded:{left_out}:refused:used", "product", "ada", 1),
        ("refused:used", "product", "bob", RECORDED_OF_A_USER_A_MINUTE),
        ("declined", "product", "ada", 1),
    }


async def test_links_of_more_users_than_are_remembered_are_told_apart_by_caller(
    database: Database, trail: AuditTrail, stopwatch: Stopwatch
) -> None:
    for number in range(USERS_AT_MOST):
        with_link(trail, 1, f"user-{number}")
        if number % 100 == 0:
            await trail.flush()
    await trail.flush()
    for number in range(500):
        with_link(trail, 1, f"one-too-many-{number}")
    stopwatch.now += MINUTE_SECONDS
    await trail.flush()
    left_out = 500 - RECORDED_OF_A_USER_A_MINUTE
    assert (f"not_recorded:{left_out}:refused:used", "product", None, 1) in await rows(database)
    assert len(await rows(database)) == USERS_AT_MOST + RECORDED_OF_A_USER_A_MINUTE + 1


async def test_while_all_room_is_taken_no_user_is_remembered(
    database: Database, trail: AuditTrail, stopwatch: Stopwatch
) -> None:
    for _ in range(HELD):
        trail.record(action="token", outcome="ok")
    for number in range(3):
        with_link(trail, 1, f"user-{number}")
    stopwatch.now += MINUTE_SECONDS
    await trail.flush()
    await trail.flush()
    assert ("not_recorded:3:refused:used", "product", None, 1) in await rows(database)
