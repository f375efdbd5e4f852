"""A failed revocation or security event is answered 503, logged, counted and shown by readiness."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from broker.database.pool import _CLOSE_SECONDS
from broker.telemetry.failed_revocations import DEADLINE_SECONDS
from devstack.google_standin import GoogleStandin
from tests.support.clock import ManualClock
from tests.support.lossy_link import LossyLink
from tests.support.security_events import post
from tests.support.waiting import eventually
from tests.support.world import ADA, World, open_world


@asynccontextmanager
async def _locked_grants(world: World) -> AsyncIterator[None]:
    """Keep all grants locked, as a machine that was lost during a transaction would."""
    connection = await asyncpg.connect(world.settings.database_url.reveal())
    try:
        await connection.execute("BEGIN; SELECT * FROM grants FOR UPDATE")
        yield
    finally:
        await connection.close()


async def _revocations(world: World) -> tuple[str, Any]:
    """Return the overall status, and that of the part."""
    body = (await world.ops.get("/readyz")).json()
    return body["status"], body["parts"]["revocations"]["status"]


async def _are_carried_out(world: World) -> bool:
    return await _revocations(world) == ("ready", "up")


def _reported(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [
        record
        for record in caplog.records
        if vars(record).get("event") in ("revocation_failed", "security_event_failed")
    ]


async def test_a_failed_revocation_is_reported_until_it_is_carried_out(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await world.connect("user-1234567890")
    assert await _are_carried_out(world)
    async with _locked_grants(world):
        answer = await world.revoke("user-1234567890")
        assert (answer.status_code, answer.json()["code"]) == (503, "storage_unavailable")
        assert answer.headers["retry-after"]
        assert await _revocations(world) == ("degraded", "down")
    (record,) = _reported(caplog)
    assert vars(record)["user"] == "user-12***"
    assert vars(record)["origin"] == "caller"
    assert "1234567890" not in str(vars(record))
    failed = {"origin": "caller", "outcome": "failed"}
    assert await world.metric("broker_revocations_total", **failed) == 1
    # The release of the lock alone is not enough.
    assert await _revocations(world) == ("degraded", "down")
    assert (await world.revoke("user-1234567890")).status_code == 204
    assert await _are_carried_out(world)


@pytest.fixture
def short_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """A deadline below PostgreSQL's lock timeout."""
    monkeypatch.setattr("broker.telemetry.failed_revocations.DEADLINE_SECONDS", 0.5, raising=False)


def test_the_deadline_leaves_time_to_answer_within_ten_seconds() -> None:
    assert DEADLINE_SECONDS + _CLOSE_SECONDS < 10


@pytest.mark.usefixtures("short_deadline")
async def test_a_revocation_is_answered_and_reported_within_its_deadline(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await world.connect()
    async with _locked_grants(world):
        assert (await world.revoke()).status_code == 503
        assert await _revocations(world) == ("degraded", "down")
    (record,) = _reported(caplog)
    assert vars(record)["reason"] == "StorageUnavailable: no answer in time"


@pytest.mark.usefixtures("short_deadline")
async def test_a_security_event_is_answered_and_reported_within_its_deadline(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await world.connect()
    async with _locked_grants(world):
        token = world.standin.security_event("sessions-revoked", ADA)
        assert (await post(world, token)).status_code == 503
        assert await _revocations(world) == ("degraded", "down")
    (record,) = _reported(caplog)
    assert vars(record)["reason"] == "StorageUnavailable: no answer in time"


async def test_a_revocation_that_another_replica_carries_out_is_no_longer_reported(
    world: World, tmp_path: Path, standin: GoogleStandin, clock: ManualClock
) -> None:
    await world.connect()
    address = world.settings.database_url.reveal()
    async with _locked_grants(world):
        assert (await world.revoke()).status_code == 503
    folder = tmp_path / "other"
    folder.mkdir()
    async with open_world(folder, address, standin, clock) as other:
        answer = await other.internal.delete("/v1/users/user-1/grants", headers=other.authorization)
        assert answer.status_code == 204
    await eventually(lambda: _are_carried_out(world))


async def test_a_later_consent_ends_the_report_of_a_failed_revocation(
    world: World, clock: ManualClock
) -> None:
    await world.connect()
    async with _locked_grants(world):
        assert (await world.revoke()).status_code == 503
    clock.advance(timedelta(seconds=5))
    assert await _revocations(world) == ("degraded", "down")
    await world.connect()
    assert await _are_carried_out(world)


async def test_a_revocation_that_is_not_repeated_is_reported_for_an_hour(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.connect()
    async with _locked_grants(world):
        assert (await world.revoke()).status_code == 503
    monkeypatch.setattr("broker.telemetry.failed_revocations.REMEMBERED_SECONDS", 0.0)
    assert await _are_carried_out(world)


async def test_a_failed_security_event_is_reported_until_it_has_taken_effect(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await world.connect()
    token = world.standin.security_event("account-disabled", ADA, payload={"reason": "hijacking"})
    async with _locked_grants(world):
        answer = await post(world, token)
        assert answer.status_code == 503
        assert answer.headers["retry-after"]
        assert await _revocations(world) == ("degraded", "down")
    (record,) = _reported(caplog)
    assert vars(record)["kinds"] == ["account-disabled"]
    failed = {"event": "account-disabled", "outcome": "failed"}
    assert await world.metric("broker_security_events_total", **failed) == 1
    assert (await post(world, token)).status_code == 202
    assert await _are_carried_out(world)


async def test_a_failure_because_postgresql_hangs_is_reported(
    linked_world: tuple[LossyLink, World], caplog: pytest.LogCaptureFixture
) -> None:
    link, world = linked_world
    await world.connect()
    link.cut()
    assert (await world.revoke()).status_code == 503
    assert await world.metric("broker_revocations_total", origin="caller", outcome="failed") == 1
    assert _reported(caplog)
    # No token is cached, so without PostgreSQL nothing can be served.
    assert await _revocations(world) == ("unavailable", "down")
    link.heal_with_reset()

    async def is_revoked() -> bool:
        return (await world.revoke()).status_code == 204

    await eventually(is_revoked)
    await eventually(lambda: _are_carried_out(world))
