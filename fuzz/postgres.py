"""PostgreSQL for the targets of routes: one server, with a database per target."""

import asyncio
import itertools
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from broker.database.schema import migrate
from broker.secret import Secret
from devstack.postgres import EmbeddedPostgres

DATABASE_URL = "FUZZ_DATABASE_URL"
"""The environment variable with a child process's database URL."""
_TEMPLATE = "fuzz_template"


class Ground:
    """A server with a migrated database as template."""

    def __init__(self, server: EmbeddedPostgres) -> None:
        self._server = server
        self._numbers = itertools.count(1)

    @contextmanager
    def database(self) -> Iterator[str]:
        """Yield the URL of a new database."""
        name = f"fuzz_{next(self._numbers)}"
        yield self._server.create_database(name, template=_TEMPLATE)
        self._server.drop_database(name)


@contextmanager
def laid_ground() -> Iterator[Ground]:
    """Run a PostgreSQL server."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-postgres-"))
    options = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}
    with EmbeddedPostgres(folder, options=options) as server:
        server.create_database(_TEMPLATE)
        asyncio.run(migrate(Secret(server.url(_TEMPLATE))))
        yield Ground(server)
