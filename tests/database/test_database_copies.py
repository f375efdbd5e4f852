"""Test databases that are used again: no test finds what another one stored or changed."""

from collections.abc import Iterator

import pytest

from devstack.postgres import EmbeddedPostgres
from tests.support.database_copies import DatabaseCopies

_SEAL = "INSERT INTO audit_seals VALUES (1, 1, 1, now(), now(), '', '', '', '')"
_NEXT_NUMBER = "SELECT nextval('audit_events_id_seq')"


@pytest.fixture
def copies(postgres: EmbeddedPostgres, migrated_template: str) -> Iterator[DatabaseCopies]:
    databases = DatabaseCopies(postgres, migrated_template)
    yield databases
    databases.close()


def test_a_database_is_used_again_without_rows(
    copies: DatabaseCopies, postgres: EmbeddedPostgres
) -> None:
    name = copies.acquire()
    postgres.execute(f"{_SEAL}; {_NEXT_NUMBER}", name)

    copies.release(name)

    assert copies.acquire() == name
    assert postgres.execute("SELECT count(*) FROM audit_seals", name) == "0"
    assert postgres.execute(_NEXT_NUMBER, name) == "1"


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE grants ADD COLUMN note text",
        "DROP FUNCTION audit_head(bigint, bytea)",
        "ALTER TABLE grants DISABLE TRIGGER ALL",
        "DELETE FROM schema_migrations WHERE number = 1",
        "CREATE TABLE more ()",
        """ALTER DATABASE "{name}" SET statement_timeout = '1min'""",
        'REVOKE CONNECT ON DATABASE "{name}" FROM PUBLIC',
    ],
)
def test_a_changed_database_is_not_used_again(
    copies: DatabaseCopies, postgres: EmbeddedPostgres, change: str
) -> None:
    name = copies.acquire()
    postgres.execute(change.format(name=name), name)

    copies.release(name)

    assert copies.acquire() != name
    assert not postgres.has_database(name)


def test_a_dropped_database_is_not_used_again(
    copies: DatabaseCopies, postgres: EmbeddedPostgres
) -> None:
    name = copies.acquire()
    postgres.drop_database(name)

    copies.release(name)

    assert copies.acquire() != name
