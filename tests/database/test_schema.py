"""Migrations: applied, reverted and applied again, also concurrently; and rejected schemas."""

import asyncio
import os
import re
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest

from broker.database import schema
from broker.database.database import StorageUnavailable
from broker.database.schema import (
    AppliedMigration,
    SchemaError,
    applied_migrations,
    check_schema,
    known_migrations,
    migrate,
)
from broker.secret import Secret
from devstack.postgres import BIN_DIR, EmbeddedPostgres
from tests.support.waiting import eventually

NEWEST = known_migrations()[-1].number


@pytest.fixture
def empty_name(postgres: EmbeddedPostgres) -> Iterator[str]:
    name = f"empty_{uuid4().hex}"
    postgres.create_database(name)
    yield name
    postgres.drop_database(name)


@pytest.fixture
def url(postgres: EmbeddedPostgres, empty_name: str) -> Secret:
    """The address of an empty database."""
    return Secret(postgres.url(empty_name))


async def _execute(url: Secret, sql: str) -> None:
    connection = await asyncpg.connect(url.reveal())
    try:
        await connection.execute(sql)
    finally:
        await connection.close()


def _dump(postgres: EmbeddedPostgres, url: Secret) -> str:
    """Return the schema as `pg_dump` writes it, without the random key of each run."""
    done = subprocess.run(
        (str(BIN_DIR / "pg_dump"), "--schema-only", f"--dbname={url.reveal()}"),
        env={**os.environ, "PGPASSWORD": postgres.password},
        capture_output=True,
        text=True,
        check=True,
    )
    return re.sub(r"^\\(un)?restrict .*$", "", done.stdout, flags=re.MULTILINE)


# ---- the files


def test_the_migrations_are_numbered_without_gaps() -> None:
    numbers = [migration.number for migration in known_migrations()]
    assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.parametrize("migration", known_migrations(), ids=lambda m: m.name)
def test_every_migration_has_a_reversal(migration: schema.Migration) -> None:
    assert migration.up.strip()
    assert migration.down.strip()
    assert 1 <= migration.oldest_release <= migration.number


GOOD_FILE = "-- oldest-release: 1\n-- migrate:up\nSELECT 1;\n-- migrate:down\nSELECT 2;\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for this release's migrations."""
    monkeypatch.setattr("importlib.resources.files", lambda _package: tmp_path)
    return tmp_path


def test_a_gap_between_the_files_raises(folder: Path) -> None:
    for name in ("0001_one.sql", "0003_three.sql"):
        (folder / name).write_text(GOOD_FILE)
    with pytest.raises(ValueError, match="migration 0002 is missing"):
        known_migrations()


def test_two_files_with_one_number_raise(folder: Path) -> None:
    for name in ("0001_one.sql", "0001_other.sql"):
        (folder / name).write_text(GOOD_FILE)
    with pytest.raises(ValueError, match="migration 0002 is missing"):
        known_migrations()


@pytest.mark.parametrize("left_out", ["-- oldest-release: 1\n", "-- migrate:up", "-- migrate:down"])
def test_a_file_without_one_of_its_parts_raises(folder: Path, left_out: str) -> None:
    (folder / "0001_one.sql").write_text(GOOD_FILE.replace(left_out, ""))
    with pytest.raises(ValueError, match=r"0001_one\.sql: needs oldest-release"):
        known_migrations()


# ---- up and down


async def test_an_empty_database_is_migrated(url: Secret) -> None:
    steps = await migrate(url)
    assert steps == [f"applied {m.number:04} {m.name}" for m in known_migrations()]
    check_schema(await applied_migrations(url))


async def test_a_current_schema_is_not_changed(url: Secret) -> None:
    await migrate(url)
    assert await migrate(url) == []


async def test_reverting_all_migrations_leaves_nothing(
    postgres: EmbeddedPostgres, url: Secret
) -> None:
    await migrate(url, to=0)
    bare = _dump(postgres, url)
    await migrate(url)
    steps = await migrate(url, to=0)
    assert steps == [f"reverted {m.number:04} {m.name}" for m in reversed(known_migrations())]
    assert _dump(postgres, url) == bare
    assert await applied_migrations(url) == []


async def test_migrating_up_down_and_up_gives_the_same_schema(
    postgres: EmbeddedPostgres, url: Secret
) -> None:
    await migrate(url)
    fresh = _dump(postgres, url)
    await migrate(url, to=0)
    await migrate(url)
    assert _dump(postgres, url) == fresh


async def test_every_migration_can_be_reverted_and_applied_again(
    postgres: EmbeddedPostgres, url: Secret
) -> None:
    for number in range(1, NEWEST + 1):
        await migrate(url, to=number)
        dump = _dump(postgres, url)
        await migrate(url, to=number - 1)
        await migrate(url, to=number)
        assert _dump(postgres, url) == dump


async def test_migrating_one_by_one_gives_the_same_schema_as_all_together(
    postgres: EmbeddedPostgres, url: Secret, database_url: str
) -> None:
    for number in range(1, NEWEST + 1):
        await migrate(url, to=number)
    assert _dump(postgres, url) == _dump(postgres, Secret(database_url))


async def test_rows_survive_a_repeated_migrate(url: Secret) -> None:
    await migrate(url)
    await _execute(url, "INSERT INTO audit_events (at, action, outcome) VALUES (now(), 'a', 'b')")
    await migrate(url)
    connection = await asyncpg.connect(url.reveal())
    try:
        assert await connection.fetchval("SELECT count(*) FROM audit_events") == 1
    finally:
        await connection.close()


async def test_concurrent_migrations_are_serialised(url: Secret) -> None:
    answers = await asyncio.gather(*(migrate(url) for _ in range(4)))
    assert sorted(map(len, answers)) == [0, 0, 0, NEWEST]


@pytest.mark.parametrize("number", [-1, NEWEST + 1])
async def test_an_unknown_number_is_rejected(url: Secret, number: int) -> None:
    with pytest.raises(SchemaError, match="there is no migration"):
        await migrate(url, to=number)
    assert await applied_migrations(url) == []


async def test_a_failed_migration_is_rolled_back_and_reported(
    url: Secret, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = schema.Migration(1, "good", 1, "CREATE TABLE good ();", "DROP TABLE good;")
    bad = schema.Migration(2, "bad", 1, "CREATE TABLE bad (); SELECT nonsense;", "DROP TABLE bad;")
    monkeypatch.setattr(schema, "known_migrations", lambda: [good, bad])
    with pytest.raises(SchemaError, match='refused the query: column "nonsense" does not exist'):
        await migrate(url)
    assert [step.name for step in await applied_migrations(url)] == ["good"]
    connection = await asyncpg.connect(url.reveal())
    try:
        assert await connection.fetchval("SELECT to_regclass('bad')") is None
    finally:
        await connection.close()


async def test_a_role_without_rights_on_the_schema_is_reported(
    postgres: EmbeddedPostgres, url: Secret, empty_name: str
) -> None:
    role = f"guest_{uuid4().hex}"
    postgres.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'guest'")
    guest = Secret(f"postgresql://{role}:guest@127.0.0.1:{postgres.port}/{empty_name}")
    with pytest.raises(SchemaError, match="refused the query: permission denied for schema"):
        await migrate(guest)


async def test_a_role_without_rights_on_the_history_is_reported(
    postgres: EmbeddedPostgres, url: Secret, empty_name: str
) -> None:
    await migrate(url)
    role = f"guest_{uuid4().hex}"
    postgres.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'guest'")
    guest = Secret(f"postgresql://{role}:guest@127.0.0.1:{postgres.port}/{empty_name}")
    with pytest.raises(SchemaError, match="refused the query: permission denied for table"):
        await applied_migrations(guest)


async def test_a_connection_lost_midway_is_an_outage(
    url: Secret, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminate = "SELECT pg_terminate_backend(pg_backend_pid());"
    monkeypatch.setattr(
        schema, "known_migrations", lambda: [schema.Migration(1, "one", 1, terminate, "")]
    )
    with pytest.raises(StorageUnavailable, match="lost midway"):
        await migrate(url)


# ---- with concurrent transactions


@asynccontextmanager
async def _reading_grants(url: Secret) -> AsyncIterator[int]:
    """Read grants in a long transaction, as a dump does; yields the server process id."""
    connection = await asyncpg.connect(url.reveal(), server_settings={"application_name": "a dump"})
    try:
        async with connection.transaction():
            await connection.execute("SELECT * FROM grants")
            yield connection.get_server_pid()
    finally:
        await connection.close()


_WAITING = """
SELECT count(*) FROM pg_locks JOIN pg_class ON pg_class.oid = relation
WHERE relname = 'grants' AND NOT granted AND mode = 'AccessExclusiveLock'
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


async def test_readers_do_not_queue_behind_a_waiting_migration(url: Secret) -> None:
    await migrate(url, to=12)
    reader = await asyncpg.connect(url.reveal())

    async def is_waiting() -> bool:
        return bool(await reader.fetchval(_WAITING))

    async with _reading_grants(url):
        migrating = asyncio.create_task(migrate(url, to=13))
        for _ in range(2):
            await eventually(is_waiting, seconds=60)
            # Behind the migration, it would be answered only after the long transaction.
            await reader.execute("SELECT * FROM grants", timeout=60)
        assert not migrating.done()
    assert await migrating == ["applied 0013 time_of_consent"]
    await reader.close()


async def test_a_waiting_migration_reports_the_holder_of_the_lock(url: Secret) -> None:
    await migrate(url, to=12)
    reports: list[str] = []

    async def has_reported() -> bool:
        return bool(reports)

    async with _reading_grants(url) as pid:
        migrating = asyncio.create_task(migrate(url, to=13, report=reports.append))
        await eventually(has_reported, seconds=60)
    assert re.fullmatch(
        rf"waiting for a lock on grants, held by process {pid} "
        r"\(\w+, a dump, idle in transaction, for \d+ s\)",
        reports[0],
    )
    assert await migrating == ["applied 0013 time_of_consent"]


async def test_a_waiting_migration_gives_up_after_its_timeout(url: Secret) -> None:
    await migrate(url, to=12)
    async with _reading_grants(url) as pid:
        with pytest.raises(SchemaError, match=rf"waiting for a lock on grants, .*process {pid} "):
            await migrate(url, to=13, give_up_seconds=0)
    assert await migrate(url, to=13) == ["applied 0013 time_of_consent"]


async def test_a_migration_that_waits_for_another_gives_up_after_its_timeout(url: Secret) -> None:
    other = await asyncpg.connect(url.reveal())
    await other.execute("SELECT pg_advisory_lock(7305417119)")
    with pytest.raises(SchemaError, match=rf"lock on the schema, .*{other.get_server_pid()}"):
        await migrate(url, give_up_seconds=0)
    await other.close()
    assert len(await migrate(url)) == NEWEST


async def test_reading_the_history_has_a_lock_timeout(url: Secret) -> None:
    await migrate(url)
    other = await asyncpg.connect(url.reveal())
    async with other.transaction():
        await other.execute("LOCK TABLE schema_migrations")
        with pytest.raises(SchemaError, match="lock timeout"):
            await applied_migrations(url)
    await other.close()


async def test_the_migrating_connection_has_the_usual_timeouts(
    url: Secret, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = "CREATE TABLE noted AS SELECT name, setting FROM pg_settings;"
    monkeypatch.setattr(
        schema, "known_migrations", lambda: [schema.Migration(1, "one", 1, note, "")]
    )
    await migrate(url)
    connection = await asyncpg.connect(url.reveal())
    rows = await connection.fetch("SELECT name, setting FROM noted")
    noted = {row["name"]: row["setting"] for row in rows}
    await connection.close()
    assert noted["lock_timeout"] == "1500"
    assert noted["idle_in_transaction_session_timeout"] == "5000"
    assert noted["statement_timeout"] == "0"
    assert noted["tcp_keepalives_idle"] == "5"
    assert noted["tcp_user_timeout"] == "10000"


# ---- schemas of other releases

HERE = [AppliedMigration(m.number, m.name, m.oldest_release) for m in known_migrations()]


def test_the_schema_of_this_release_is_accepted() -> None:
    check_schema(HERE)


def test_a_database_without_a_schema_is_rejected_with_the_remedy() -> None:
    with pytest.raises(SchemaError, match="run `broker migrate`"):
        check_schema([])


def test_an_older_schema_is_rejected_with_the_remedy() -> None:
    with pytest.raises(SchemaError, match=f"is at {NEWEST - 1:04}.*run `broker migrate`"):
        check_schema(HERE[:-1])


def test_a_newer_schema_that_only_adds_is_accepted() -> None:
    check_schema(
        [
            *HERE,
            AppliedMigration(NEWEST + 1, "more", NEWEST),
            AppliedMigration(NEWEST + 2, "most", 1),
        ]
    )


def test_a_newer_schema_that_this_release_would_harm_is_rejected() -> None:
    newer = [
        *HERE,
        AppliedMigration(NEWEST + 1, "rebuilt", NEWEST + 1),
        AppliedMigration(NEWEST + 2, "more", 1),
    ]
    with pytest.raises(SchemaError, match="run the newer release"):
        check_schema(newer)


@pytest.mark.parametrize(
    "applied",
    [
        [AppliedMigration(1, "renamed", 1), *HERE[1:]],
        [HERE[0], *HERE[2:], AppliedMigration(NEWEST + 1, "more", 1)],
        [AppliedMigration(0, "before", 1), *HERE],
    ],
    ids=["renamed", "gap", "before the first"],
)
def test_the_schema_of_another_program_is_rejected(applied: list[AppliedMigration]) -> None:
    with pytest.raises(SchemaError, match="another program or branch"):
        check_schema(applied)


@pytest.mark.parametrize(
    ("tamper", "message"),
    [
        ("UPDATE schema_migrations SET name = 'renamed' WHERE number = 1", "does not know"),
        ("INSERT INTO schema_migrations VALUES (9999, 'unknown', 1)", "0004 is missing"),
        ("INSERT INTO schema_migrations VALUES (4, 'unknown', 99)", "does not know"),
        ("DELETE FROM schema_migrations WHERE number = 2", "0002 is missing in the database"),
    ],
)
@pytest.mark.parametrize("to", [None, 0])
async def test_an_unknown_history_is_not_changed(
    url: Secret, tamper: str, message: str, to: int | None
) -> None:
    await migrate(url)
    await _execute(url, tamper.replace("(4,", f"({NEWEST + 1},"))
    before = await applied_migrations(url)
    with pytest.raises(SchemaError, match=message.replace("0004", f"{NEWEST + 1:04}")):
        await migrate(url, to=to)
    assert await applied_migrations(url) == before


async def test_a_rolled_back_release_leaves_a_newer_schema_unchanged(
    url: Secret,
) -> None:
    await migrate(url)
    await _execute(url, f"INSERT INTO schema_migrations VALUES ({NEWEST + 1}, 'more', 1)")
    before = await applied_migrations(url)
    assert await migrate(url) == []
    assert await applied_migrations(url) == before


# ---- an unreachable database

UNREACHABLE = {
    "nothing listens": ("postgresql://u:hunter2@127.0.0.1:1/db", "refused|failed"),
    "no such host": ("postgresql://u:hunter2@nowhere.invalid/db", "not known|resolution"),
    "no such option": ("postgresql://u:hunter2@127.0.0.1:1/db?sslmode=hunter3", "`sslmode` param"),
    "password not encoded": ("postgresql://u:hunter2/x@127.0.0.1/db", "can't be read"),
    "port too high": ("postgresql://u:hunter2@127.0.0.1:99999/db", "can't be read"),
}


@pytest.mark.parametrize("operation", [migrate, applied_migrations])
@pytest.mark.parametrize(("address", "words"), UNREACHABLE.values(), ids=UNREACHABLE)
async def test_an_unreachable_address_is_reported_without_the_address(
    operation: Callable[[Secret], Awaitable[object]], address: str, words: str
) -> None:
    with pytest.raises(StorageUnavailable, match=words) as raised:
        await operation(Secret(address))
    assert "hunter2" not in str(raised.value)
    assert "127.0.0.1" not in str(raised.value)


async def test_a_wrong_password_is_reported_without_the_password(url: Secret) -> None:
    user, _, rest = url.reveal().partition("@")
    wrong = Secret(f"{user}hunter2@{rest}")
    with pytest.raises(StorageUnavailable, match="password authentication failed") as raised:
        await migrate(wrong)
    assert "hunter2" not in str(raised.value)


async def test_a_database_that_does_not_exist_is_reported(url: Secret) -> None:
    with pytest.raises(StorageUnavailable, match="does not exist"):
        await migrate(Secret(url.reveal() + "_nowhere"))
