"""Migrations up, down and up again, by one or by two, and the schemas that are refused."""

import asyncio
import os
import re
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest

from broker.database import schema
from broker.database.database import StorageUnavailable
from broker.database.schema import (
    Applied,
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
    """A database with nothing in it."""
    return Secret(postgres.url(empty_name))


async def _execute(url: Secret, sql: str) -> None:
    connection = await asyncpg.connect(url.reveal())
    try:
        await connection.execute(sql)
    finally:
        await connection.close()


def _dump(postgres: EmbeddedPostgres, url: Secret) -> str:
    """The schema as `pg_dump` writes it, without the key that it makes up each time."""
    done = subprocess.run(
        (str(BIN_DIR / "pg_dump"), "--schema-only", f"--dbname={url.reveal()}"),
        env={**os.environ, "PGPASSWORD": postgres.password},
        capture_output=True,
        text=True,
        check=True,
    )
    return re.sub(r"^\\(un)?restrict .*$", "", done.stdout, flags=re.MULTILINE)


# ---- the files


def test_the_migrations_are_numbered_without_a_gap() -> None:
    numbers = [migration.number for migration in known_migrations()]
    assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.parametrize("migration", known_migrations(), ids=lambda m: m.name)
def test_every_migration_has_its_way_back(migration: schema.Migration) -> None:
    assert migration.up.strip()
    assert migration.down.strip()
    assert 1 <= migration.oldest_release <= migration.number


GOOD_FILE = "-- oldest-release: 1\n-- migrate:up\nSELECT 1;\n-- migrate:down\nSELECT 2;\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this release's migrations seem to be."""
    monkeypatch.setattr("importlib.resources.files", lambda _package: tmp_path)
    return tmp_path


def test_a_gap_among_the_files_is_refused(folder: Path) -> None:
    for name in ("0001_one.sql", "0003_three.sql"):
        (folder / name).write_text(GOOD_FILE)
    with pytest.raises(ValueError, match="migration 0002 is missing"):
        known_migrations()


def test_two_files_of_one_number_are_refused(folder: Path) -> None:
    for name in ("0001_one.sql", "0001_other.sql"):
        (folder / name).write_text(GOOD_FILE)
    with pytest.raises(ValueError, match="migration 0002 is missing"):
        known_migrations()


@pytest.mark.parametrize("left_out", ["-- oldest-release: 1\n", "-- migrate:up", "-- migrate:down"])
def test_a_file_without_all_its_parts_is_refused(folder: Path, left_out: str) -> None:
    (folder / "0001_one.sql").write_text(GOOD_FILE.replace(left_out, ""))
    with pytest.raises(ValueError, match=r"0001_one\.sql: needs oldest-release"):
        known_migrations()


# ---- up and down


async def test_an_empty_database_is_brought_up(url: Secret) -> None:
    steps = await migrate(url)
    assert steps == [f"applied {m.number:04} {m.name}" for m in known_migrations()]
    check_schema(await applied_migrations(url))


async def test_what_is_up_to_date_is_left_alone(url: Secret) -> None:
    await migrate(url)
    assert await migrate(url) == []


async def test_nothing_is_left_of_a_schema_taken_back(
    postgres: EmbeddedPostgres, url: Secret
) -> None:
    await migrate(url, to=0)
    bare = _dump(postgres, url)
    await migrate(url)
    steps = await migrate(url, to=0)
    assert steps == [f"took back {m.number:04} {m.name}" for m in reversed(known_migrations())]
    assert _dump(postgres, url) == bare
    assert await applied_migrations(url) == []


async def test_up_down_and_up_again_gives_the_same_schema(
    postgres: EmbeddedPostgres, url: Secret
) -> None:
    await migrate(url)
    fresh = _dump(postgres, url)
    await migrate(url, to=0)
    await migrate(url)
    assert _dump(postgres, url) == fresh


async def test_every_single_step_can_be_taken_back_and_again(
    postgres: EmbeddedPostgres, url: Secret
) -> None:
    for number in range(1, NEWEST + 1):
        await migrate(url, to=number)
        there = _dump(postgres, url)
        await migrate(url, to=number - 1)
        await migrate(url, to=number)
        assert _dump(postgres, url) == there


async def test_step_by_step_gives_the_same_schema_as_all_at_once(
    postgres: EmbeddedPostgres, url: Secret, database_url: str
) -> None:
    for number in range(1, NEWEST + 1):
        await migrate(url, to=number)
    assert _dump(postgres, url) == _dump(postgres, Secret(database_url))


async def test_rows_survive_a_migration_that_is_run_again(url: Secret) -> None:
    await migrate(url)
    await _execute(url, "INSERT INTO audit_events (at, action, outcome) VALUES (now(), 'a', 'b')")
    await migrate(url)
    connection = await asyncpg.connect(url.reveal())
    try:
        assert await connection.fetchval("SELECT count(*) FROM audit_events") == 1
    finally:
        await connection.close()


async def test_several_at_once_take_turns(url: Secret) -> None:
    answers = await asyncio.gather(*(migrate(url) for _ in range(4)))
    assert sorted(map(len, answers)) == [0, 0, 0, NEWEST]


@pytest.mark.parametrize("number", [-1, NEWEST + 1])
async def test_a_number_that_does_not_exist_is_refused(url: Secret, number: int) -> None:
    with pytest.raises(SchemaError, match="there is no migration"):
        await migrate(url, to=number)
    assert await applied_migrations(url) == []


async def test_a_step_that_fails_is_undone_and_told(
    url: Secret, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = schema.Migration(1, "good", 1, "CREATE TABLE good ();", "DROP TABLE good;")
    bad = schema.Migration(2, "bad", 1, "CREATE TABLE bad (); SELECT nonsense;", "DROP TABLE bad;")
    monkeypatch.setattr(schema, "known_migrations", lambda: [good, bad])
    with pytest.raises(SchemaError, match='PostgreSQL refuses: column "nonsense" does not exist'):
        await migrate(url)
    assert [step.name for step in await applied_migrations(url)] == ["good"]
    connection = await asyncpg.connect(url.reveal())
    try:
        assert await connection.fetchval("SELECT to_regclass('bad')") is None
    finally:
        await connection.close()


async def test_a_role_that_may_not_change_the_schema_is_told_so(
    postgres: EmbeddedPostgres, url: Secret, empty_name: str
) -> None:
    role = f"guest_{uuid4().hex}"
    postgres.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'guest'")
    guest = Secret(f"postgresql://{role}:guest@127.0.0.1:{postgres.port}/{empty_name}")
    with pytest.raises(SchemaError, match="PostgreSQL refuses: permission denied for schema"):
        await migrate(guest)


async def test_a_role_that_may_not_read_the_history_is_told_so(
    postgres: EmbeddedPostgres, url: Secret, empty_name: str
) -> None:
    await migrate(url)
    role = f"guest_{uuid4().hex}"
    postgres.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'guest'")
    guest = Secret(f"postgresql://{role}:guest@127.0.0.1:{postgres.port}/{empty_name}")
    with pytest.raises(SchemaError, match="PostgreSQL refuses: permission denied for table"):
        await applied_migrations(guest)


async def test_a_connection_that_is_lost_midway_is_an_outage(
    url: Secret, monkeypatch: pytest.MonkeyPatch
) -> None:
    suicide = "SELECT pg_terminate_backend(pg_backend_pid());"
    monkeypatch.setattr(
        schema, "known_migrations", lambda: [schema.Migration(1, "one", 1, suicide, "")]
    )
    with pytest.raises(StorageUnavailable, match="lost midway"):
        await migrate(url)


# ---- while others are at work


@asynccontextmanager
async def _reading_grants(url: Secret) -> AsyncIterator[int]:
    """Somebody reads them in a long transaction, as a dump does; gives its process."""
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


async def test_readers_do_not_queue_behind_a_migration_that_has_to_wait(url: Secret) -> None:
    await migrate(url, to=12)
    reader = await asyncpg.connect(url.reveal())

    async def is_waiting() -> bool:
        return bool(await reader.fetchval(_WAITING))

    async with _reading_grants(url):
        migrating = asyncio.create_task(migrate(url, to=13))
        for _ in range(2):
            await eventually(is_waiting, seconds=60)
            # What would be answered only when the long transaction has ended.
            await reader.execute("SELECT * FROM grants", timeout=60)
        assert not migrating.done()
    assert await migrating == ["applied 0013 time_of_consent"]
    await reader.close()


async def test_a_migration_says_who_is_in_the_way(url: Secret) -> None:
    await migrate(url, to=12)
    told: list[str] = []

    async def has_told() -> bool:
        return bool(told)

    async with _reading_grants(url) as pid:
        migrating = asyncio.create_task(migrate(url, to=13, tell=told.append))
        await eventually(has_told, seconds=60)
    assert re.fullmatch(
        rf"waiting for a lock on grants, held by process {pid} "
        r"\(\w+, a dump, idle in transaction, for \d+ s\)",
        told[0],
    )
    assert await migrating == ["applied 0013 time_of_consent"]


async def test_a_migration_gives_up_in_the_end(url: Secret) -> None:
    await migrate(url, to=12)
    async with _reading_grants(url) as pid:
        with pytest.raises(SchemaError, match=rf"waiting for a lock on grants, .*process {pid} "):
            await migrate(url, to=13, give_up_seconds=0)
    assert await migrate(url, to=13) == ["applied 0013 time_of_consent"]


async def test_a_migration_that_waits_for_its_turn_gives_up_in_the_end(url: Secret) -> None:
    other = await asyncpg.connect(url.reveal())
    await other.execute("SELECT pg_advisory_lock(7305417119)")
    with pytest.raises(SchemaError, match=rf"lock on the schema, .*{other.get_server_pid()}"):
        await migrate(url, give_up_seconds=0)
    await other.close()
    assert len(await migrate(url)) == NEWEST


async def test_looking_at_the_schema_waits_for_nobody_without_end(url: Secret) -> None:
    await migrate(url)
    other = await asyncpg.connect(url.reveal())
    async with other.transaction():
        await other.execute("LOCK TABLE schema_migrations")
        with pytest.raises(SchemaError, match="lock timeout"):
            await applied_migrations(url)
    await other.close()


async def test_what_migrates_has_the_time_outs_of_all_connections(
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


# ---- schemas that are not this release's

HERE = [Applied(m.number, m.name, m.oldest_release) for m in known_migrations()]


def test_this_releases_schema_is_accepted() -> None:
    check_schema(HERE)


def test_a_database_without_a_schema_is_told_what_to_run() -> None:
    with pytest.raises(SchemaError, match="run `broker migrate`"):
        check_schema([])


def test_an_older_schema_is_told_what_to_run() -> None:
    with pytest.raises(SchemaError, match=f"is at {NEWEST - 1:04}.*run `broker migrate`"):
        check_schema(HERE[:-1])


def test_a_newer_schema_that_only_adds_is_accepted() -> None:
    check_schema([*HERE, Applied(NEWEST + 1, "more", NEWEST), Applied(NEWEST + 2, "most", 1)])


def test_a_newer_schema_that_this_release_would_harm_is_refused() -> None:
    newer = [*HERE, Applied(NEWEST + 1, "rebuilt", NEWEST + 1), Applied(NEWEST + 2, "more", 1)]
    with pytest.raises(SchemaError, match="run the newer release"):
        check_schema(newer)


@pytest.mark.parametrize(
    "applied",
    [
        [Applied(1, "renamed", 1), *HERE[1:]],
        [HERE[0], *HERE[2:], Applied(NEWEST + 1, "more", 1)],
        [Applied(0, "before", 1), *HERE],
    ],
    ids=["renamed", "gap", "before the first"],
)
def test_anothers_schema_is_refused(applied: list[Applied]) -> None:
    with pytest.raises(SchemaError, match="another program or branch"):
        check_schema(applied)


@pytest.mark.parametrize(
    ("tamper", "complaint"),
    [
        ("UPDATE schema_migrations SET name = 'renamed' WHERE number = 1", "does not know"),
        ("INSERT INTO schema_migrations VALUES (9999, 'unknown', 1)", "0004 is missing"),
        ("INSERT INTO schema_migrations VALUES (4, 'unknown', 99)", "does not know"),
        ("DELETE FROM schema_migrations WHERE number = 2", "0002 is missing in the database"),
    ],
)
@pytest.mark.parametrize("to", [None, 0])
async def test_a_history_that_this_release_does_not_know_is_not_touched(
    url: Secret, tamper: str, complaint: str, to: int | None
) -> None:
    await migrate(url)
    await _execute(url, tamper.replace("(4,", f"({NEWEST + 1},"))
    before = await applied_migrations(url)
    with pytest.raises(SchemaError, match=complaint.replace("0004", f"{NEWEST + 1:04}")):
        await migrate(url, to=to)
    assert await applied_migrations(url) == before


async def test_a_release_that_was_rolled_back_leaves_a_newer_schema_that_only_adds(
    url: Secret,
) -> None:
    await migrate(url)
    await _execute(url, f"INSERT INTO schema_migrations VALUES ({NEWEST + 1}, 'more', 1)")
    before = await applied_migrations(url)
    assert await migrate(url) == []
    assert await applied_migrations(url) == before


# ---- no way to the database

UNREACHABLE = {
    "nobody listens": ("postgresql://u:hunter2@127.0.0.1:1/db", "refused|failed"),
    "no such host": ("postgresql://u:hunter2@nowhere.invalid/db", "not known|resolution"),
    "no such option": ("postgresql://u:hunter2@127.0.0.1:1/db?sslmode=hunter3", "`sslmode` param"),
    "password not encoded": ("postgresql://u:hunter2/x@127.0.0.1/db", "can't be read"),
    "port too high": ("postgresql://u:hunter2@127.0.0.1:99999/db", "can't be read"),
}


@pytest.mark.parametrize(("address", "words"), UNREACHABLE.values(), ids=UNREACHABLE)
async def test_an_address_that_leads_nowhere_is_told_without_itself(
    address: str, words: str
) -> None:
    for question in (migrate, applied_migrations):
        with pytest.raises(StorageUnavailable, match=words) as raised:
            await question(Secret(address))
        assert "hunter2" not in str(raised.value)
        assert "127.0.0.1" not in str(raised.value)


async def test_a_wrong_password_is_told_without_itself(url: Secret) -> None:
    user, _, rest = url.reveal().partition("@")
    wrong = Secret(f"{user}hunter2@{rest}")
    with pytest.raises(StorageUnavailable, match="password authentication failed") as raised:
        await migrate(wrong)
    assert "hunter2" not in str(raised.value)


async def test_a_database_that_does_not_exist_is_told(url: Secret) -> None:
    with pytest.raises(StorageUnavailable, match="does not exist"):
        await migrate(Secret(url.reveal() + "_nowhere"))
