"""`broker drill` on real backups: one taken under load, and each kind of damaged backup."""

import asyncio
import os
import re
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
import pytest_asyncio
from click.testing import CliRunner

from broker.cli.drill import drill
from broker.database.database import Database
from broker.database.schema import migrate
from broker.secret import Secret
from devstack.google_standin import GoogleStandin
from devstack.postgres import EmbeddedPostgres
from tests.recovery.dumps import dump, restore
from tests.recovery.installation import (
    DATABASE,
    Drilling,
    archive_all,
    archiving_server,
    base_backup,
    owned,
    recovered_by_hand,
)
from tests.support.clock import ManualClock
from tests.support.world import World, open_world

OTHER_KEY = "another-key-of-more-than-32-bytes-0123456789abc"


@dataclass
class Installation:
    """A server with backups, and the users who consented, with times."""

    server: EmbeddedPostgres
    backups: Path
    settings: dict[str, str]
    connected: list[str]
    """All users, in the order in which they consented."""
    between: str
    """A time between the consents of the last two."""

    @property
    def base(self) -> Path:
        return self.backups / "base" / "20260101T000000Z"

    @property
    def drilling(self) -> Drilling:
        return Drilling(self.settings)


async def _keep_connecting(world: World, connected: list[str]) -> None:
    while True:
        await _connect(world, connected)


async def _connect(world: World, connected: list[str]) -> None:
    user = f"user-{len(connected)}"
    world.standin.add_account(f"{user}@example.com")
    await world.connect(user, f"{user}@example.com")
    connected.append(user)


@pytest_asyncio.fixture(scope="module")
async def installation(
    tmp_path_factory: pytest.TempPathFactory, shared_standin: GoogleStandin
) -> AsyncIterator[Installation]:
    """The base backup is taken while users consent; two consent after it."""
    folder = tmp_path_factory.mktemp("installation")
    backups = folder / "backups"
    archive = owned(backups / "wal")
    clock = ManualClock(datetime.now(UTC))
    shared_standin.reset(clock=clock)
    with archiving_server(folder / "server", archive) as server:
        url = server.create_database(DATABASE)
        await migrate(Secret(url))
        connected: list[str] = []
        async with open_world(folder, url, shared_standin, clock) as world:
            await _connect(world, connected)
            load = asyncio.create_task(_keep_connecting(world, connected))
            await asyncio.to_thread(
                base_backup, server, backups / "base" / "20260101T000000Z", "--format=tar", "--gzip"
            )
            load.cancel()
            with suppress(asyncio.CancelledError):
                await load
            assert len(connected) > 1, "no user consented while the backup was taken"
            await _connect(world, connected)
            between = server.execute("SELECT clock_timestamp()")
            await _connect(world, connected)
            secret_key = world.settings.secret_keys[0].reveal()
        archive_all(server, archive)
        settings = {"DATABASE_URL": url, "SECRET_KEY": secret_key}
        yield Installation(server, backups, settings, connected, between)


async def test_a_backup_taken_under_load_serves_a_token(
    installation: Installation, tmp_path: Path
) -> None:
    metrics = owned(tmp_path / "metrics") / "drill.prom"
    status, said, error = await asyncio.to_thread(
        installation.drilling.run, "--backups", str(installation.backups), "--textfile",
        str(metrics),
    )  # fmt: skip
    assert (status, error) == (0, ""), error
    assert "refresh tokens of key 1: one was opened" in said
    assert "the audit trail is intact: " in said
    assert "a token was served" in said
    rto, rpo = re.findall(r"^R[TP]O ([0-9.]+) s", said, re.MULTILINE)
    text = metrics.read_text(encoding="utf-8")
    assert f"broker_drill_rto_seconds {rto}\n" in text
    assert f"broker_drill_rpo_seconds {rpo}\n" in text
    moment = re.search(r"^broker_drill_last_success_timestamp_seconds ([0-9]+)$", text, re.M)
    assert moment
    assert abs(int(moment[1]) - datetime.now(UTC).timestamp()) < 120


def _users(server: EmbeddedPostgres) -> list[str]:
    return server.execute(
        "SELECT user_id FROM grants WHERE status = 'active' ORDER BY connected_at, changed_at",
        DATABASE,
    ).splitlines()


def test_manual_recovery_restores_everything_in_the_archive(
    installation: Installation, tmp_path: Path
) -> None:
    with recovered_by_hand(
        installation.base, installation.backups / "wal", tmp_path / "restored",
        installation.server.password,
    ) as restored:  # fmt: skip
        assert sorted(_users(restored)) == sorted(installation.connected)


def test_point_in_time_recovery_ends_at_that_time(
    installation: Installation, tmp_path: Path
) -> None:
    with recovered_by_hand(
        installation.base, installation.backups / "wal", tmp_path / "restored",
        installation.server.password, until=installation.between,
    ) as restored:  # fmt: skip
        assert sorted(_users(restored)) == sorted(installation.connected[:-1])


@pytest.mark.parametrize("in_background", [False, True])
def test_a_terminated_drill_stops_its_server(
    installation: Installation, tmp_path: Path, in_background: bool
) -> None:
    backups = _copy(installation, tmp_path)
    newest = max(path for path in (backups / "wal").iterdir() if "." not in path.name)
    # Recovery waits for this segment until a process writes into it.
    newest.unlink()
    os.mkfifo(newest, mode=0o644)
    status, said, _ = installation.drilling.run(
        "--backups", str(backups), terminate_at="postmaster.pid", in_background=in_background
    )
    assert status == 1
    assert "RTO" not in said


def _copy(installation: Installation, folder: Path) -> Path:
    copy = folder / "backups"
    shutil.copytree(installation.backups, copy)
    return copy


def _cut(file: Path) -> None:
    with file.open("r+b") as opened:
        opened.truncate(file.stat().st_size * 2 // 3)


def _base(backups: Path) -> Path:
    return backups / "base" / "20260101T000000Z"


def _truncate_base(backups: Path) -> None:
    _cut(_base(backups) / "base.tar.gz")


def _truncate_segment(backups: Path) -> None:
    _cut(max(file for file in (backups / "wal").iterdir() if len(file.name) == 24))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_truncate_base, "20260101T000000Z is truncated or can't be read"),
        (_truncate_segment, "PostgreSQL can't recover: archive file"),
    ],
)
def test_a_damaged_backup_is_one_line(
    installation: Installation, tmp_path: Path, damage: object, words: str
) -> None:
    copy = _copy(installation, tmp_path)
    damage(copy)  # type: ignore[operator]
    status, said, error = installation.drilling.run("--backups", str(copy))
    assert (status, words in error, error.count("\n")) == (1, True, 1), error
    assert "RTO" not in said


def test_a_backup_sealed_with_another_key_fails(installation: Installation, tmp_path: Path) -> None:
    metrics = owned(tmp_path / "metrics") / "drill.prom"
    status, _, error = installation.drilling.run(
        "--backups", str(installation.backups), "--textfile", str(metrics), SECRET_KEY=OTHER_KEY
    )
    assert (status, error.count("\n")) == (1, 1)
    assert "SECRET_KEY does not open the backup" in error
    assert "the key is missing" in error
    assert not metrics.exists()


def test_a_dump_serves_a_token_unless_it_is_truncated(
    installation: Installation, tmp_path: Path
) -> None:
    file = dump(installation.settings["DATABASE_URL"], tmp_path / "broker.dump")
    status, said, error = installation.drilling.run("--backups", str(file))
    assert (status, error) == (0, "")
    assert "a token was served" in said
    _cut(file)
    status, _, error = installation.drilling.run("--backups", str(file))
    assert (status, "can't be restored" in error, error.count("\n")) == (1, True, 1), error


@pytest.mark.parametrize(
    ("arguments", "changes", "words"),
    [
        ((), {}, "give either --backups PATH or --restored"),
        (("--restored",), {"SECRET_KEY": "short"}, "shorter than 32 bytes"),
        (("--restored",), {}, "the database can't be reached: "),
    ],
)
def test_bad_input_is_reported(
    arguments: tuple[str, ...], changes: dict[str, str], words: str
) -> None:
    settings = {"DATABASE_URL": "postgresql://b:hunter2@127.0.0.1:1/x", "SECRET_KEY": OTHER_KEY}
    handler = signal.getsignal(signal.SIGTERM)
    result = CliRunner().invoke(drill, arguments, env=settings | changes)
    assert signal.getsignal(signal.SIGTERM) is handler
    assert (result.exit_code != 0, result.stdout) == (True, "")
    assert words in result.stderr
    assert "hunter2" not in result.stderr


@pytest.mark.parametrize("arguments", [("--restored",), ("--backups", "/")])
def test_a_read_only_file_system_is_reported_with_the_remedy(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container with a read-only root and no volume for temporary files."""
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(tmp_path / "none")])
    settings = {"DATABASE_URL": "postgresql://b@127.0.0.1:1/x", "SECRET_KEY": OTHER_KEY}
    result = CliRunner().invoke(drill, arguments, env=settings)
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (1, "", 1)
    assert "there is no writable folder for temporary files: set TMPDIR" in result.stderr


def test_missing_postgresql_programs_are_reported_with_the_remedy(
    installation: Installation,
) -> None:
    status, _, error = installation.drilling.run("--backups", "/", PATH="/usr/bin:/bin")
    assert (status, error.count("\n")) == (1, 1)
    assert "there is no `postgres` on the PATH" in error


async def _restored(installation: Installation, postgres: EmbeddedPostgres, folder: Path) -> str:
    url = installation.settings["DATABASE_URL"]
    file = await asyncio.to_thread(dump, url, folder / "broker.dump")
    return await asyncio.to_thread(restore, file, postgres)


async def test_a_backup_restored_by_another_tool_is_checked_unless_it_is_live(
    installation: Installation, postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    name = await _restored(installation, postgres, tmp_path)
    url = postgres.url(name)
    before = postgres.execute("SELECT * FROM schema_migrations", name)
    broker = Database(Secret(url))
    await broker.open()
    drilling = installation.drilling
    status, _, error = await asyncio.to_thread(drilling.run, "--restored", DATABASE_URL=url)
    assert (status, error) == (1, "Error: the database is live: 1 sessions of brokers are open\n")
    assert postgres.execute("SELECT * FROM schema_migrations", name) == before
    await broker.close()
    # Most tokens in a backup of the night before have expired.
    postgres.execute("UPDATE access_tokens SET expires_at = now() - interval '1 hour'", name)
    status, said, error = await asyncio.to_thread(drilling.run, "--restored", DATABASE_URL=url)
    assert (status, error) == (0, "")
    assert "a token was served" in said
    planted = "SELECT count(*) FROM access_tokens WHERE expires_at > now()"
    assert postgres.execute(planted, name) == "0"
    postgres.drop_database(name)


async def test_an_empty_database_is_not_migrated(
    installation: Installation, postgres: EmbeddedPostgres
) -> None:
    url = postgres.create_database("empty_for_a_drill")
    status, _, error = await asyncio.to_thread(
        installation.drilling.run, "--restored", DATABASE_URL=url
    )
    assert (status, "was anything restored into it?" in error) == (1, True)
    tables = "SELECT count(*) FROM pg_class WHERE relname = 'schema_migrations'"
    assert postgres.execute(tables, "empty_for_a_drill") == "0"
    postgres.drop_database("empty_for_a_drill")
