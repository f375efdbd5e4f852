"""Every outage of PostgreSQL is `StorageUnavailable`; a defect in a query or in data is not."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from broker.database.database import Database, StorageBusy, StorageUnavailable
from broker.secret import Secret
from devstack.postgres import EmbeddedPostgres, StopMode
from tests.support.lossy_link import lossy_link
from tests.support.postgres import UNSAFE_BUT_FAST, new_postgres_folder

PASSWORD = "hunter2"
INSERT = "INSERT INTO audit_events (at, action, outcome) VALUES (now(), $1, 'ok')"
TERMINATE = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE application_name = 'token-broker' AND datname = current_database()"
)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(Secret(database_url), max_connections=2)
    await database.open()
    yield database
    await database.close()


@asynccontextmanager
async def _opened(url: str, **changes: float) -> AsyncIterator[Database]:
    database = Database(Secret(url), **changes)  # type: ignore[arg-type]
    await database.open()
    try:
        yield database
    finally:
        await database.close()


def _events(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [vars(record)["event"] for record in caplog.records if "event" in vars(record)]


async def _as_administrator(postgres: EmbeddedPostgres, sql: str, name: str = "postgres") -> None:
    await asyncio.to_thread(postgres.execute, sql, name)


# ---- without failures


async def test_queries_return_rows_values_and_command_tags(database: Database) -> None:
    assert await database.execute(INSERT, "one") == "INSERT 0 1"
    assert [row["action"] for row in await database.fetch("SELECT * FROM audit_events")] == ["one"]
    row = await database.fetchrow("SELECT 1 AS a, 2 AS b")
    assert row is not None
    assert dict(row) == {"a": 1, "b": 2}
    assert await database.fetchval("SELECT $1::int + 1", 41) == 42
    await database.ping()


async def test_a_failed_transaction_is_rolled_back(database: Database) -> None:
    async def fail_halfway() -> None:
        async with database.transaction() as connection:
            await connection.execute(INSERT, "lost")
            raise LookupError

    with pytest.raises(LookupError):
        await fail_halfway()
    assert await database.fetchval("SELECT count(*) FROM audit_events") == 0


async def test_connections_are_returned_after_a_failure(database: Database) -> None:
    for _ in range(5):
        with pytest.raises(asyncpg.PostgresError):
            await database.execute("SELECT nonsense")
    await database.ping()


async def test_connections_have_an_application_name(database: Database) -> None:
    assert await database.fetchval("SHOW application_name") == "token-broker"


# ---- defects

DEFECTS = {
    "syntax": ("SELEC 1", (), asyncpg.PostgresSyntaxError),
    "unknown table": ("SELECT * FROM nowhere", (), asyncpg.UndefinedTableError),
    "unknown column": ("SELECT nothing FROM grants", (), asyncpg.UndefinedColumnError),
    "constraint": (
        "INSERT INTO audit_events (action) VALUES ('a')", (), asyncpg.NotNullViolationError,
    ),
    "too few arguments": ("SELECT $1::int + $2::int", (1,), asyncpg.InterfaceError),
    "too many arguments": ("SELECT 1", (1,), asyncpg.InterfaceError),
    "argument of the wrong type": ("SELECT $1::int", ("one",), asyncpg.DataError),
    "division by zero": ("SELECT 1/0", (), asyncpg.DivisionByZeroError),
    "NUL in a text": ("SELECT $1::text", ("a\0b",), asyncpg.CharacterNotInRepertoireError),
}  # fmt: skip


@pytest.mark.parametrize(("sql", "args", "error"), DEFECTS.values(), ids=DEFECTS)
@pytest.mark.parametrize("method", ["fetch", "fetchrow", "fetchval", "execute"])
async def test_a_defect_is_not_an_outage(
    database: Database, method: str, sql: str, args: tuple[object, ...], error: type[Exception]
) -> None:
    with pytest.raises(error) as raised:
        await getattr(database, method)(sql, *args)
    assert not isinstance(raised.value, StorageUnavailable)
    await database.ping()


async def test_a_defect_within_a_transaction_is_not_an_outage(database: Database) -> None:
    async def broken() -> None:
        async with database.transaction() as connection:
            await connection.execute("SELECT $1::int + $2::int", 1)

    with pytest.raises(asyncpg.InterfaceError):
        await broken()


# ---- an exhausted pool


async def test_an_exhausted_pool_is_no_outage(database_url: str) -> None:
    async with _opened(database_url, max_connections=1, connect_seconds=2) as database:
        async with database.connection():
            with pytest.raises(StorageBusy):
                await database.ping()
        await database.ping()
        assert not database.was_unavailable_within(60)


async def test_an_exhausted_pool_while_the_server_hangs_is_an_outage(database_url: str) -> None:
    async with (
        lossy_link(database_url) as (link, address),
        _opened(address, max_connections=1, connect_seconds=3.0, command_seconds=4.0) as database,
    ):
        link.cut()
        writing = asyncio.create_task(_outcome(database))
        await asyncio.sleep(0)
        reading = asyncio.create_task(database.read("SELECT 1"))
        with pytest.raises(StorageUnavailable) as raised:
            await database.ping()
        assert not isinstance(raised.value, StorageBusy)
        assert database.was_unavailable_within(1)
        await asyncio.wait([writing, reading])
        assert writing.result() == "unavailable"
        assert isinstance(reading.exception(), StorageUnavailable)


# ---- outages


async def test_a_database_that_was_never_opened_is_unavailable(database_url: str) -> None:
    with pytest.raises(StorageUnavailable, match="not connected"):
        await Database(Secret(database_url)).ping()


async def test_a_database_that_opens_when_used_connects_at_its_first_use(database_url: str) -> None:
    database = Database(Secret(database_url), opens_when_used=True)
    await asyncio.gather(*(database.ping() for _ in range(3)))
    await database.close()


async def test_a_database_that_opens_when_used_may_be_unavailable() -> None:
    with pytest.raises(StorageUnavailable):
        await Database(Secret("postgresql://127.0.0.1:1/none"), opens_when_used=True).ping()


async def test_a_closed_database_is_unavailable(database_url: str) -> None:
    async with _opened(database_url) as database:
        pass
    with pytest.raises(StorageUnavailable):
        await database.ping()


@pytest.mark.parametrize(
    "address",
    [
        f"postgresql://u:{PASSWORD}@127.0.0.1:1/db",
        f"postgresql://u:{PASSWORD}@nowhere.invalid/db",
        f"postgresql://u:{PASSWORD}@127.0.0.1:99999/db",
        f"postgresql://u:{PASSWORD}/x@127.0.0.1/db",
        f"postgresql://u:{PASSWORD}@127.0.0.1:1/db?sslmode=none",
    ],
)
async def test_an_unreachable_address_is_unavailable_and_not_shown(address: str) -> None:
    with pytest.raises(StorageUnavailable) as raised:
        await Database(Secret(address)).open()
    assert PASSWORD not in str(raised.value)
    assert "127.0.0.1" not in str(raised.value)


async def test_a_wrong_password_is_unavailable_and_not_shown(
    postgres: EmbeddedPostgres, database_name: str
) -> None:
    address = f"postgresql://broker:{PASSWORD}@127.0.0.1:{postgres.port}/{database_name}"
    with pytest.raises(StorageUnavailable, match=r"^InvalidPasswordError$"):
        await Database(Secret(address)).open()


async def test_a_database_that_does_not_exist_is_unavailable(database_url: str) -> None:
    with pytest.raises(StorageUnavailable, match=r"^InvalidCatalogNameError$"):
        await Database(Secret(database_url + "_nowhere")).open()


async def test_a_dropped_database_is_unavailable(
    database: Database, postgres: EmbeddedPostgres, database_name: str
) -> None:
    await asyncio.to_thread(postgres.drop_database, database_name)
    for _ in range(3):
        with pytest.raises(StorageUnavailable):
            await database.ping()


async def test_a_connection_lost_between_queries_is_a_temporary_outage(
    database: Database, postgres: EmbeddedPostgres, database_name: str
) -> None:
    await database.ping()
    await _as_administrator(postgres, TERMINATE, database_name)
    answers = [await _outcome(database) for _ in range(5)]
    assert answers[-1] == "up"
    assert set(answers) <= {"up", "unavailable"}


async def test_a_connection_lost_during_a_query_is_an_outage(database: Database) -> None:
    with pytest.raises(StorageUnavailable):
        await database.fetchval("SELECT pg_terminate_backend(pg_backend_pid())")
    await database.ping()


async def test_a_connection_lost_within_a_transaction_is_an_outage(
    database: Database, postgres: EmbeddedPostgres, database_name: str
) -> None:
    async def interrupted() -> None:
        async with database.transaction() as connection:
            await connection.execute(INSERT, "lost")
            await _as_administrator(postgres, TERMINATE, database_name)
            await connection.execute(INSERT, "lost too")

    with pytest.raises(StorageUnavailable):
        await interrupted()
    assert await database.fetchval("SELECT count(*) FROM audit_events") == 0


async def test_using_a_lost_connection_is_an_outage(
    database: Database, postgres: EmbeddedPostgres, database_name: str
) -> None:
    async def ignore_errors() -> None:
        async with database.connection() as connection:
            await _as_administrator(postgres, TERMINATE, database_name)
            for _ in range(2):
                try:
                    await connection.execute("SELECT 1")
                except asyncpg.PostgresError:
                    continue
            await connection.execute("SELECT 1")

    with pytest.raises(StorageUnavailable):
        await ignore_errors()


async def test_a_query_beyond_its_timeout_is_an_outage(database_url: str) -> None:
    async with _opened(database_url, command_seconds=2) as database:
        with pytest.raises(StorageUnavailable, match=r"^TimeoutError$"):
            await database.execute("SELECT pg_sleep(30)")
        await database.ping()


async def test_a_query_cancelled_by_the_server_is_an_outage(database: Database) -> None:
    with pytest.raises(StorageUnavailable, match=r"^QueryCanceledError$"):
        await database.execute("SET statement_timeout = 50; SELECT pg_sleep(30)")


async def test_too_many_connections_are_an_outage(
    postgres: EmbeddedPostgres, database_name: str, database_url: str
) -> None:
    role = f"few_{database_name}"
    await _as_administrator(postgres, f"CREATE ROLE {role} LOGIN PASSWORD 'p' CONNECTION LIMIT 1")
    address = f"postgresql://{role}:p@127.0.0.1:{postgres.port}/{database_name}"
    async with _opened(address):
        with pytest.raises(StorageUnavailable, match=r"^TooManyConnectionsError$"):
            await Database(Secret(address)).open()


async def test_a_role_that_may_not_connect_is_an_outage(
    postgres: EmbeddedPostgres, database_name: str
) -> None:
    role = f"guest_{database_name}"
    await _as_administrator(
        postgres,
        f"CREATE ROLE {role} LOGIN PASSWORD 'p'; "
        f'REVOKE CONNECT ON DATABASE "{database_name}" FROM PUBLIC',
    )
    address = f"postgresql://{role}:p@127.0.0.1:{postgres.port}/{database_name}"
    with pytest.raises(StorageUnavailable, match=r"^InsufficientPrivilegeError$"):
        await Database(Secret(address)).open()


async def test_a_database_that_allows_no_connections_is_an_outage(
    postgres: EmbeddedPostgres, database_name: str, database_url: str
) -> None:
    await _as_administrator(postgres, f'ALTER DATABASE "{database_name}" ALLOW_CONNECTIONS false')
    with pytest.raises(StorageUnavailable, match=r"^ObjectNotInPrerequisiteStateError$"):
        await Database(Secret(database_url)).open()


async def test_a_read_only_server_is_an_outage_for_writes(
    postgres: EmbeddedPostgres, database_name: str, database_url: str
) -> None:
    await _as_administrator(
        postgres, f'ALTER DATABASE "{database_name}" SET default_transaction_read_only = on'
    )
    async with _opened(database_url) as database:
        await database.ping()
        with pytest.raises(StorageUnavailable, match=r"^ReadOnlySQLTransactionError$"):
            await database.execute(INSERT, "lost")


async def test_a_deadlock_is_contention_and_no_outage(database: Database) -> None:
    both_hold_one = asyncio.Barrier(2)

    async def lock(first: int, second: int) -> None:
        async with database.transaction() as connection:
            await connection.execute("SET LOCAL deadlock_timeout = '20ms'")
            await connection.execute("SELECT pg_advisory_xact_lock($1)", first)
            await both_hold_one.wait()
            await connection.execute("SELECT pg_advisory_xact_lock($1)", second)

    outcomes = await asyncio.gather(lock(1, 2), lock(2, 1), return_exceptions=True)
    failures = [outcome for outcome in outcomes if outcome is not None]
    assert [str(failure) for failure in failures] == ["DeadlockDetectedError"]
    assert isinstance(failures[0], StorageBusy)
    assert not database.was_unavailable_within(60)


async def test_a_row_locked_by_another_transaction_is_contention_and_no_outage(
    database: Database,
) -> None:
    async def touched() -> None:
        await database.execute("UPDATE audit_checkpoints SET faults = 0")

    await database.execute("ALTER TABLE audit_checkpoints DISABLE TRIGGER append_only")
    await database.execute(
        "INSERT INTO audit_checkpoints (number, seal_mac, began_at, until, records, faults, "
        "unverified, key_id, mac) VALUES (1, '', now(), now(), 0, 0, 0, '', '')"
    )
    async with database.transaction() as connection:
        await connection.execute("SELECT * FROM audit_checkpoints FOR UPDATE")
        with pytest.raises(StorageBusy, match=r"^LockNotAvailableError$"):
            await touched()
    assert not database.was_unavailable_within(60)
    await touched()


async def test_a_serialization_failure_is_contention_and_no_outage(database: Database) -> None:
    with pytest.raises(StorageBusy, match=r"^SerializationError$"):
        await database.execute("DO $$ BEGIN RAISE SQLSTATE '40001'; END $$")
    assert not database.was_unavailable_within(60)


@pytest.mark.parametrize("mode", ["fast", "immediate"])
async def test_a_stopped_server_is_unavailable_until_it_is_restarted(
    tmp_path_factory: pytest.TempPathFactory, mode: StopMode
) -> None:
    folder = new_postgres_folder(tmp_path_factory)
    with EmbeddedPostgres(folder, options=UNSAFE_BUT_FAST) as server:
        async with _opened(server.url()) as database:
            await database.ping()
            await asyncio.to_thread(server.stop, mode)
            for _ in range(3):
                with pytest.raises(StorageUnavailable):
                    await database.ping()
            await asyncio.to_thread(server.start)
            await database.ping()


async def test_mixed_up_prepared_statements_are_an_outage_once(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(StorageUnavailable):
        await _prepare_twice(database)
    assert "postgres_pooler_detected" in _events(caplog)
    async with database.connection() as connection:
        assert await connection.fetchval("SELECT $1::int", 1) == 1
        kept = await connection.fetch("SELECT name FROM pg_prepared_statements WHERE name <> ''")
    assert kept == []


async def _prepare_twice(database: Database) -> None:
    async with database.connection() as connection:
        for _ in range(2):
            await connection.execute("PREPARE taken AS SELECT 1")


async def test_without_a_pooler_statements_are_prepared(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    async with database.connection() as connection:
        await connection.fetchval("SELECT $1::int", 1)
        kept = await connection.fetch("SELECT name FROM pg_prepared_statements")
    assert kept
    assert "postgres_pooler_detected" not in _events(caplog)


async def test_closing_does_not_wait_long_for_a_running_query(database_url: str) -> None:
    database = Database(Secret(database_url), command_seconds=60)
    await database.open()
    sleeping = asyncio.create_task(database.execute("SELECT pg_sleep(60)"))
    async with _opened(database_url) as other:
        await _until_running(other, "SELECT pg_sleep(60)")
    async with asyncio.timeout(5):
        await database.close()
    with pytest.raises(StorageUnavailable):
        await sleeping


async def _until_running(database: Database, query: str) -> None:
    found = "SELECT count(*) FROM pg_stat_activity WHERE query = $1"
    async with asyncio.timeout(5):
        while not await database.fetchval(found, query):  # noqa: ASYNC110  (it sends no event)
            await asyncio.sleep(0.01)


async def _outcome(database: Database) -> str:
    try:
        await database.ping()
    except StorageUnavailable:
        return "unavailable"
    return "up"
