"""The real PostgreSQL of the tests: one server per session."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from devstack.postgres import EmbeddedPostgres

UNSAFE_BUT_FAST = {"fsync": "off", "full_page_writes": "off", "scram_iterations": "1"}
"""Settings of a server whose data must survive a crash of the server, but not of the machine, and
whose passwords need not withstand guessing: each connection costs half as much.
"""


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """A server that all tests share; a test that stops a server starts its own."""
    server = EmbeddedPostgres(new_postgres_folder(tmp_path_factory), options=UNSAFE_BUT_FAST)
    with server:
        yield server


def new_postgres_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create the data folder of a test's own server."""
    return tmp_path_factory.mktemp("postgres")
