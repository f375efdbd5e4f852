"""How commands that work for long use the database: checked, bounded, its troubles told."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import click

from broker.database.database import Database, StorageUnavailable
from broker.database.schema import SchemaError, applied_migrations, check_schema
from broker.secret import Secret

QUERY_SECONDS = 3600.0
"""What a single statement may take: these read whole tables."""

T = TypeVar("T")


def on_database(url: Secret, work: Callable[[Database], Awaitable[T]], *, connections: int) -> T:
    """Do it on this database, of this release's schema. Raises `click.ClickException`."""

    async def run() -> T:
        check_schema(await applied_migrations(url))
        database = Database(url, max_connections=connections, command_seconds=QUERY_SECONDS)
        await database.open()
        try:
            return await work(database)
        finally:
            await database.close()

    try:
        return asyncio.run(run())
    except StorageUnavailable as error:
        raise click.ClickException(f"the database can't be reached: {error}") from error
    except SchemaError as error:
        raise click.ClickException(str(error)) from error
