"""`broker migrate`: brings the schema to what this release needs, or back."""

import asyncio
import os

import click

from broker.cli.complaints import settings_complaint
from broker.database import schema
from broker.database.database import StorageUnavailable
from broker.settings import SettingsError, load_database_url


@click.command()
@click.option(
    "--to",
    type=click.IntRange(min=0),
    metavar="NUMBER",
    help="Stop at this migration; a lower number than now goes back, and loses what came later.",
)
def migrate(to: int | None) -> None:
    """Apply what is missing of the schema at DATABASE_URL.

    Safe to run while an older release is serving, by several at once, and again. What it waits for,
    such as a dump that is under way, it tells; after ten minutes it gives up.
    """
    try:
        url = load_database_url(os.environ)
        steps = asyncio.run(schema.migrate(url, to=to, tell=_tell))
    except SettingsError as error:
        raise settings_complaint(error) from error
    except StorageUnavailable as error:
        raise click.ClickException(f"the database can't be reached: {error}") from error
    except schema.SchemaError as error:
        raise click.ClickException(str(error)) from error
    for step in steps:
        click.echo(step)
    click.echo("the schema is up to date" if not steps else "done")


def _tell(line: str) -> None:
    click.echo(line, err=True)
