"""`broker audit replay`: revocations after a backup are repeated after its restore."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from broker.cli.audit import audit
from devstack.google_standin import GoogleStandin
from devstack.postgres import EmbeddedPostgres
from tests.recovery.dumps import dump, restore
from tests.support.clock import ManualClock
from tests.support.processes import run_broker
from tests.support.security_events import send_event, state
from tests.support.waiting import eventually
from tests.support.world import World, open_world

USERS = ("untouched", "revoked", "revoked-and-back", "ended-by-google", "disabled")
ACTIVE = ("active", None, True)
REVOKED = ("revoked", None, False)


@dataclass
class Disaster:
    """An export of what happened after a backup, and the database restored from the backup."""

    export: Path
    settings: dict[str, str]
    restored: str

    def run(self, *arguments: str) -> tuple[int, str, str]:
        done = CliRunner().invoke(audit, arguments, env=self.settings)
        return done.exit_code, done.stdout, done.stderr


async def _recorded(world: World, action: str, count: int) -> None:
    async def is_there() -> bool:
        rows = await world.sql("SELECT FROM audit_events WHERE action = $1", action)
        return len(rows) >= count

    await eventually(is_there)


@pytest.fixture
def clock() -> ManualClock:
    """A clock a day behind that of the machine and of PostgreSQL, which commands use.

    A broker whose own clock is less than an hour off would follow PostgreSQL's, which does not
    stand still during a test.
    """
    return ManualClock(datetime.now(UTC) - timedelta(days=1))


@pytest.fixture
async def disaster(
    tmp_path: Path,
    database_url: str,
    postgres: EmbeddedPostgres,
    standin: GoogleStandin,
    clock: ManualClock,
) -> AsyncIterator[Disaster]:
    async with open_world(tmp_path, database_url, standin, clock) as world:
        for user in USERS:
            standin.add_account(f"{user}@example.com")
            await world.connect(user, f"{user}@example.com")
        await _recorded(world, "consent", len(USERS))
        backup = await asyncio.to_thread(dump, database_url, tmp_path / "backup.dump")
        clock.advance(timedelta(seconds=1))
        for user in ("revoked", "revoked-and-back"):
            assert (await world.revoke(user)).status_code == 204
        await world.until_revocations_are_sent()
        clock.advance(timedelta(seconds=1))
        await world.connect("revoked-and-back", "revoked-and-back@example.com")
        await send_event(world, "tokens-revoked", "ended-by-google@example.com")
        await send_event(world, "account-disabled", "disabled@example.com")
        await _recorded(world, "consent", len(USERS) + 1)
        await _recorded(world, "security_event", 2)
        secret_key = world.settings.secret_keys[0].reveal()
    settings = {"DATABASE_URL": database_url, "SECRET_KEY": secret_key}
    exported = await asyncio.to_thread(run_broker, "audit", "export", settings=settings)
    export = tmp_path / "export.jsonl"
    export.write_text(exported.stdout, encoding="utf-8")
    (tmp_path / "head").write_text(exported.stderr, encoding="utf-8")
    name = await asyncio.to_thread(restore, backup, postgres)
    yield Disaster(export, {**settings, "DATABASE_URL": postgres.url(name)}, name)
    postgres.drop_database(name)


async def test_lost_revocations_are_repeated_here_and_at_google(
    disaster: Disaster, tmp_path: Path, standin: GoogleStandin, clock: ManualClock
) -> None:
    calls_before = standin.requests.count("revoke")
    status, said, _ = await asyncio.to_thread(disaster.run, "replay", str(disaster.export))
    assert status == 0, said
    assert "4 revoked again" in said
    again = await asyncio.to_thread(disaster.run, "replay", str(disaster.export))
    assert again[0] == 0
    assert again[1].endswith("\n4 already revoked, or not in the backup\n")
    url = disaster.settings["DATABASE_URL"]
    clock.advance(timedelta(days=1, minutes=1))
    async with open_world(tmp_path, url, standin, clock) as world:
        assert await state(world) == [
            ("disabled", "reauthorization_required", "account_disabled", True),
            ("ended-by-google", "reauthorization_required", "google_tokens_revoked", False),
            ("revoked", *REVOKED),
            ("revoked-and-back", *REVOKED),
            ("untouched", *ACTIVE),
        ]
        for user, status in zip(USERS, (200, 404, 404, 409, 409), strict=True):
            assert (await world.token(user)).status_code == status
        await world.until_revocations_are_sent()
        assert standin.requests.count("revoke") == calls_before + 2
        rows = await world.sql(
            "SELECT action, outcome, user_id, caller FROM audit_events "
            "WHERE outcome LIKE '%after_restore' ORDER BY user_id"
        )
        assert [tuple(row) for row in rows] == [
            ("security_event", "account-disabled:held_back:after_restore", "disabled", None),
            ("security_event", "tokens-revoked:erased:after_restore", "ended-by-google", None),
            ("grant_revoked", "after_restore", "revoked", "calendar-sync"),
            ("grant_revoked", "after_restore", "revoked-and-back", "calendar-sync"),
        ]


async def test_a_user_who_consents_again_after_the_restore_keeps_the_grant(
    disaster: Disaster, tmp_path: Path, standin: GoogleStandin, clock: ManualClock
) -> None:
    url = disaster.settings["DATABASE_URL"]
    clock.advance(timedelta(minutes=1))
    async with open_world(tmp_path, url, standin, clock) as world:
        await world.connect("revoked", "revoked@example.com")
    _, said, _ = await asyncio.to_thread(disaster.run, "replay", str(disaster.export))
    assert "1 skipped: the user has consented again since" in said
    async with open_world(tmp_path, url, standin, clock) as world:
        assert (await world.token("revoked")).status_code == 200
        assert (await world.token("revoked-and-back")).status_code == 404


def _rows(disaster: Disaster, postgres: EmbeddedPostgres) -> str:
    tables = ("grants", "pending_revocations", "audit_events")
    return "\n".join(
        postgres.execute(f"SELECT * FROM {table} ORDER BY 1", disaster.restored) for table in tables
    )


async def test_a_dry_run_changes_nothing(disaster: Disaster, postgres: EmbeddedPostgres) -> None:
    before = _rows(disaster, postgres)
    status, said, _ = await asyncio.to_thread(
        disaster.run, "replay", "--dry-run", str(disaster.export)
    )
    assert status == 0
    assert said.count(": would be revoked again\n") == 4
    assert said.endswith("\n4 would be revoked again\n")
    assert _rows(disaster, postgres) == before


async def test_an_unusable_export_changes_nothing(
    disaster: Disaster, tmp_path: Path, postgres: EmbeddedPostgres
) -> None:
    """The error is one line, also after valid lines in the file."""
    text = disaster.export.read_text(encoding="utf-8")
    lines = text.splitlines(keepends=True)
    (lost,) = [
        line for line in lines if '"grant_revoked"' in line and '"user_id":"revoked"' in line
    ]
    before = _rows(disaster, postgres)
    for number, (given, words) in enumerate(
        {
            "": "holds no record",
            text + "{}\n": f"line {len(lines) + 1} is not a record of `broker audit export`",
            text + '{"id": 1\n': "is not a record",
            text.rstrip("\n"): f"line {len(lines)} has no end: the export was cut off",
            text[:-40]: "has no end",
            lost.replace('"id":', '"id":-'): "line 1 is not a record",
            lost.replace('"scopes":[', '"scopes":[7,'): "line 1 is not a record",
            lost: "have no record in common",
            lines[0]: "the audit trail has all 1 records",
            "\0\n": "line 1 is not a record",
        }.items()
    ):
        file = tmp_path / f"export-{number}"
        file.write_text(given, encoding="utf-8")
        status, said, error = await asyncio.to_thread(disaster.run, "replay", str(file))
        assert (status, said, error.count("\n")) == (1, "", 1), error
        assert words in error
    assert _rows(disaster, postgres) == before
    status, said, _ = await asyncio.to_thread(
        disaster.run, "replay", "--accept-unrelated", str(tmp_path / "export-7")
    )
    assert (status, "1 revoked again" in said) == (0, True)


async def test_a_revocation_of_unknown_outcome_is_left_in_doubt(
    disaster: Disaster, postgres: EmbeddedPostgres
) -> None:
    lines = disaster.export.read_text(encoding="utf-8").splitlines(keepends=True)
    record = json.loads(lines[-1]) | {
        "id": 10_000, "action": "grant_revoked", "outcome": "storage_unavailable",
        "user_id": "untouched", "account_sub": None,
    }  # fmt: skip
    disaster.export.write_text("".join([lines[0], json.dumps(record) + "\n"]), encoding="utf-8")
    status, said, _ = await asyncio.to_thread(disaster.run, "replay", str(disaster.export))
    assert status == 1
    assert "user untouched, all accounts: in doubt" in said
    query = "SELECT status FROM grants WHERE user_id = 'untouched'"
    assert postgres.execute(query, disaster.restored) == "active"


async def test_without_an_export_every_usable_grant_is_doubtful(disaster: Disaster) -> None:
    status, said, _ = await asyncio.to_thread(disaster.run, "doubtful", "--output", "json")
    records = [json.loads(line) for line in said.splitlines()]
    assert status == 0
    assert [record["user_id"] for record in records] == sorted(USERS)
    _, table, _ = await asyncio.to_thread(disaster.run, "doubtful")
    assert len(table.splitlines()) == 1 + len(USERS)


async def test_verify_reports_the_batch_to_which_the_trail_was_rolled_back(
    disaster: Disaster, tmp_path: Path
) -> None:
    status, said, _ = await asyncio.to_thread(
        disaster.run, "verify", "--heads-from", str(tmp_path / "head")
    )
    assert status == 1
    (rolled_back, _head, verdict) = said.splitlines()
    assert rolled_back.startswith("rolled back: to batch ")
    assert verdict.startswith("1 fault: ")
