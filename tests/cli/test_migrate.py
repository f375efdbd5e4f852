"""`broker migrate`: its output, and how it rejects bad input."""

from collections.abc import Iterator, Mapping
from uuid import uuid4

import pytest
from click.testing import CliRunner, Result

from broker.cli.migrate import migrate
from broker.database.schema import known_migrations
from devstack.postgres import EmbeddedPostgres
from tests.support.processes import run_broker

NEWEST = known_migrations()[-1]


@pytest.fixture
def url(postgres: EmbeddedPostgres) -> Iterator[str]:
    """An empty database."""
    name = f"empty_{uuid4().hex}"
    yield postgres.create_database(name)
    postgres.drop_database(name)


def _run(settings: Mapping[str, str | None], *arguments: str) -> Result:
    environ = {"DATABASE_URL": None, "DATABASE_URL_FILE": None, **settings}
    return CliRunner(env=environ).invoke(migrate, list(arguments))


def _refusal(settings: Mapping[str, str | None], *arguments: str) -> str:
    result = _run(settings, *arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: ")
    assert "Traceback" not in result.stderr
    return result.stderr


def test_each_migration_is_printed(url: str) -> None:
    result = _run({"DATABASE_URL": url})
    steps = [f"applied {step.number:04} {step.name}" for step in known_migrations()]
    assert (result.exit_code, result.stdout.splitlines()) == (0, [*steps, "done"])


def test_a_second_run_has_nothing_to_do(url: str) -> None:
    _run({"DATABASE_URL": url})
    result = _run({"DATABASE_URL": url})
    assert (result.exit_code, result.stdout) == (0, "the schema is up to date\n")


def test_a_lower_number_reverts_migrations(url: str) -> None:
    _run({"DATABASE_URL": url})
    result = _run({"DATABASE_URL": url}, "--to", str(NEWEST.number - 1))
    assert result.stdout == f"reverted {NEWEST.number:04} {NEWEST.name}\ndone\n"


def test_migrate_needs_only_the_database(url: str) -> None:
    result = run_broker("migrate", settings={"DATABASE_URL": url})
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.endswith("done\n")


def test_two_processes_at_the_same_time_migrate_once(url: str) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(2) as pool:
        running = [
            pool.submit(run_broker, "migrate", settings={"DATABASE_URL": url}) for _ in range(2)
        ]
        results = [process.result() for process in running]
    assert [result.returncode for result in results] == [0, 0]
    assert sum("applied 0001" in result.stdout for result in results) == 1


def test_an_unknown_migration_is_rejected(url: str) -> None:
    assert "there is no migration 9999" in _refusal({"DATABASE_URL": url}, "--to", "9999")


@pytest.mark.parametrize("number", ["-1", "two", ""])
def test_a_malformed_number_is_rejected(number: str) -> None:
    result = _run({"DATABASE_URL": "postgresql://127.0.0.1:1/none"}, "--to", number)
    assert result.exit_code == 2
    assert "Invalid value for '--to'" in result.stderr


def test_a_missing_setting_is_reported() -> None:
    assert "DATABASE_URL is missing" in _refusal({})


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("postgresql://broker:hunter2@127.0.0.1:1/none", "can't be reached: Connection refused"),
        ("postgresql://broker:hunter2/2@127.0.0.1:1/none", "percent-encoded"),
        ("postgresql://broker:hunter2@127.0.0.1:1/none?sslmode=on", "`sslmode` parameter must be"),
        ("mysql://broker:hunter2@127.0.0.1/none", "must begin with postgresql://"),
    ],
)
def test_an_unreachable_database_is_reported_without_its_address(address: str, words: str) -> None:
    refusal = _refusal({"DATABASE_URL": address})
    assert words in refusal
    assert "hunter2" not in refusal
    assert "127.0.0.1" not in refusal


def test_the_schema_of_another_release_is_not_changed(url: str, postgres: EmbeddedPostgres) -> None:
    _run({"DATABASE_URL": url})
    database = url.rsplit("/", 1)[1]
    postgres.execute("UPDATE schema_migrations SET name = 'other' WHERE number = 1", database)
    assert "which this release does not know" in _refusal({"DATABASE_URL": url})
