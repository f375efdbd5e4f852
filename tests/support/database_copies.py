"""Migrated databases for tests: emptied and used again, as a copy takes longer than most tests.

A database is dropped if a test changed its schema, settings or privileges, or if emptying it fails;
the next test gets a new copy.
"""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from uuid import uuid4

import asyncpg

from devstack.postgres import EmbeddedPostgres

_MAX_TABLE_BYTES = 1024 * 1024
"""A database with a larger table is dropped: such a table is slow to read even when empty."""

_END_SESSIONS = """
SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
"""

_SCHEMA = """
SELECT md5(concat(
    (SELECT string_agg(concat(oid, '.', xmin), ',' ORDER BY oid)
     FROM pg_class WHERE relnamespace = 'public'::regnamespace),
    (SELECT string_agg(concat(oid, '.', xmin), ',' ORDER BY oid)
     FROM pg_proc WHERE pronamespace = 'public'::regnamespace),
    (SELECT string_agg(concat(oid, '.', xmin), ',' ORDER BY oid)
     FROM pg_trigger WHERE NOT tgisinternal),
    (SELECT string_agg(concat(oid, '.', xmin), ',' ORDER BY oid) FROM pg_namespace),
    (SELECT string_agg(step::text, ',' ORDER BY number) FROM schema_migrations AS step),
    (SELECT concat(oid, datallowconn, datconnlimit, datacl)
     FROM pg_database WHERE datname = current_database()),
    (SELECT count(*) FROM pg_db_role_setting
     WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database()))
))
"""

_TABLES = """
SELECT quote_ident(relname) AS name, relkind = 'S' AS is_sequence,
    relkind = 'r' AND pg_relation_size(oid) > $1 AS is_large
FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'S')
    AND relname <> 'schema_migrations'
"""


@dataclass(frozen=True)
class _Copy:
    """A database, and the digest of its schema before any test used it."""

    name: str
    connection: asyncpg.Connection
    schema: str


class DatabaseCopies:
    """Copies of one template, each used by one test at a time. Not for use in a running loop."""

    def __init__(self, server: EmbeddedPostgres, template: str) -> None:
        self._server = server
        self._template = template
        self._loop = asyncio.new_event_loop()
        self._available: list[_Copy] = []
        self._in_use: dict[str, _Copy] = {}

    def acquire(self) -> str:
        """Return the name of a database with the template's schema and no rows."""
        copy = (
            self._available.pop()
            if self._available
            else self._loop.run_until_complete(self._create())
        )
        self._in_use[copy.name] = copy
        return copy.name

    def release(self, name: str) -> None:
        """Empty the database for the next test, or drop it."""
        copy = self._in_use.pop(name)
        try:
            is_empty = self._loop.run_until_complete(_empty(copy))
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
            is_empty = False
        if is_empty:
            self._available.append(copy)
            return
        copy.connection.terminate()
        # The socket is closed in the loop's next turn.
        self._loop.run_until_complete(asyncio.sleep(0))
        self._server.drop_database(name)

    def close(self) -> None:
        """Close the connections to the server."""
        for copy in [*self._available, *self._in_use.values()]:
            with suppress(OSError, asyncpg.InterfaceError):
                self._loop.run_until_complete(copy.connection.close(timeout=1))
        self._loop.close()

    async def _create(self) -> _Copy:
        name = f"test_{uuid4().hex}"
        connection = await asyncpg.connect(
            self._server.create_database(name, template=self._template)
        )
        return _Copy(name, connection, await connection.fetchval(_SCHEMA))


async def _empty(copy: _Copy) -> bool:
    """Delete all rows; return False if the database must not be used again."""
    connection = copy.connection
    await connection.execute(_END_SESSIONS)
    if await connection.fetchval(_SCHEMA) != copy.schema:
        return False
    tables = await connection.fetch(_TABLES, _MAX_TABLE_BYTES)
    if any(table["is_large"] for table in tables):
        return False
    # The audit's triggers refuse every DELETE, and those of grants would record each change.
    statements = ["BEGIN", "SET LOCAL session_replication_role = replica"]
    statements += [
        f"SELECT setval('{table['name']}', 1, false)"
        if table["is_sequence"]
        else f"DELETE FROM {table['name']}"
        for table in tables
    ]
    await connection.execute("; ".join([*statements, "COMMIT"]))
    return True
