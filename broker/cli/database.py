"""The database of commands: checked before use, and its errors are one line."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import asyncpg
import click

from broker.database.database import Database, StorageUnavailable
from broker.database.schema import SchemaError, applied_migrations, check_schema
from broker.secret import Secret

QUERY_SECONDS = 3600.0
"""The time limit of one statement: some read whole tables."""

_T = TypeVar("_T")


@contextmanager
def database_errors() -> Iterator[None]:
    """Turn the database's errors into one line. Raises `click.ClickException`."""
    try:
        yield
    except StorageUnavailable as error:
        raise click.ClickException(f"the database can't be reached: {error}") from error
    except SchemaError as error:
        raise click.ClickException(str(error)) from error
    except asyncpg.PostgresError as error:
        raise click.ClickException(f"PostgreSQL reports an error: {error}") from error


def on_database(
    url: Secret, work: Callable[[Database], Awaitable[_T]], *, connections: int = 1
) -> _T:
    """Check that the database has this release's schema, and run the work on it.

    Raises `click.ClickException`.
    """

    async def run() -> _T:
        check_schema(await applied_migrations(url))
        database = Database(url, max_connections=connections, command_seconds=QUERY_SECONDS)
        await database.open()
        try:
            return await work(database)
        finally:
            await database.close()

    with database_errors():
        return asyncio.run(run())
