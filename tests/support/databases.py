"""Migrated databases for tests that leave no mark on them: emptied and lent again, not made anew.

To copy one takes longer than most tests. One whose schema, settings or rights a test has touched is
dropped, and so is one that can't be emptied; the next test gets a fresh copy.
"""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from uuid import uuid4

import asyncpg

from devstack.postgres import EmbeddedPostgres

_MANY_BYTES = 1024 * 1024
"""Of one table: what held so much is dropped, as it would be slow to read when empty, too."""

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
SELECT quote_ident(relname) AS name, relkind = 'S' AS counts,
    relkind = 'r' AND pg_relation_size(oid) > $1 AS is_large
FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'S')
    AND relname <> 'schema_migrations'
"""


@dataclass(frozen=True)
class _Watched:
    """A database, and what its schema was like before any test had it."""

    name: str
    eyes: asyncpg.Connection
    schema: str


class LentDatabases:
    """Copies of one template, each lent to one test at a time. Not for use in a running loop."""

    def __init__(self, server: EmbeddedPostgres, template: str) -> None:
        self._server = server
        self._template = template
        self._loop = asyncio.new_event_loop()
        self._clean: list[_Watched] = []
        self._lent: dict[str, _Watched] = {}

    def lend(self) -> str:
        """The name of a database with the template's schema and no row."""
        watched = self._clean.pop() if self._clean else self._loop.run_until_complete(self._made())
        self._lent[watched.name] = watched
        return watched.name

    def take_back(self, name: str) -> None:
        """Empty it for the next test, or drop it."""
        watched = self._lent.pop(name)
        try:
            is_clean = self._loop.run_until_complete(_emptied(watched))
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
            is_clean = False
        if is_clean:
            self._clean.append(watched)
            return
        watched.eyes.terminate()
        # The socket is closed in the loop's next turn.
        self._loop.run_until_complete(asyncio.sleep(0))
        self._server.drop_database(name)

    def close(self) -> None:
        """Let go of the server."""
        for watched in [*self._clean, *self._lent.values()]:
            with suppress(OSError, asyncpg.InterfaceError):
                self._loop.run_until_complete(watched.eyes.close(timeout=1))
        self._loop.close()

    async def _made(self) -> _Watched:
        name = f"test_{uuid4().hex}"
        eyes = await asyncpg.connect(self._server.create_database(name, template=self._template))
        return _Watched(name, eyes, await eyes.fetchval(_SCHEMA))


async def _emptied(watched: _Watched) -> bool:
    """Whether it is as it was, but for rows, and those are gone."""
    eyes = watched.eyes
    await eyes.execute(_END_SESSIONS)
    if await eyes.fetchval(_SCHEMA) != watched.schema:
        return False
    found = await eyes.fetch(_TABLES, _MANY_BYTES)
    if any(one["is_large"] for one in found):
        return False
    # The audit's triggers let nobody delete, and those of grants would note each change.
    lines = ["BEGIN", "SET LOCAL session_replication_role = replica"]
    lines += [
        f"SELECT setval('{one['name']}', 1, false)"
        if one["counts"]
        else f"DELETE FROM {one['name']}"
        for one in found
    ]
    await eyes.execute("; ".join([*lines, "COMMIT"]))
    return True
