"""What tests borrow has to be as good as new, or one test would see what another has left."""

from collections.abc import Iterator

import pytest

from devstack.postgres import EmbeddedPostgres
from tests.support.databases import LentDatabases

_SEAL = "INSERT INTO audit_seals VALUES (1, 1, 1, now(), now(), '', '', '', '')"
_NEXT_NUMBER = "SELECT nextval('audit_events_id_seq')"


@pytest.fixture
def lent(postgres: EmbeddedPostgres, migrated_template: str) -> Iterator[LentDatabases]:
    databases = LentDatabases(postgres, migrated_template)
    yield databases
    databases.close()


def test_a_database_is_lent_again_without_its_rows(
    lent: LentDatabases, postgres: EmbeddedPostgres
) -> None:
    name = lent.lend()
    postgres.execute(f"{_SEAL}; {_NEXT_NUMBER}", name)

    lent.take_back(name)

    assert lent.lend() == name
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
def test_one_that_is_not_as_it_was_is_lent_to_nobody(
    lent: LentDatabases, postgres: EmbeddedPostgres, change: str
) -> None:
    name = lent.lend()
    postgres.execute(change.format(name=name), name)

    lent.take_back(name)

    assert lent.lend() != name
    assert not postgres.has_database(name)


def test_one_that_is_gone_is_lent_to_nobody(
    lent: LentDatabases, postgres: EmbeddedPostgres
) -> None:
    name = lent.lend()
    postgres.drop_database(name)

    lent.take_back(name)

    assert lent.lend() != name
