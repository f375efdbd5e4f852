"""The real PostgreSQL of the tests: one server a session, fresh databases as they are asked for."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from devstack.postgres import EmbeddedPostgres

UNSAFE_BUT_FAST = {"fsync": "off", "full_page_writes": "off"}
"""What a server can do without that needs to survive its own crash, but not the machine's."""


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """A server that all tests share; a test that stops one starts its own."""
    server = EmbeddedPostgres(new_postgres_folder(tmp_path_factory), options=UNSAFE_BUT_FAST)
    with server:
        yield server


def new_postgres_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a server of a test's own may keep its data."""
    return tmp_path_factory.mktemp("postgres")
