"""`broker migrate`: applies or reverts database migrations."""

import asyncio

import click

from broker.cli.database import database_errors
from broker.cli.environment import from_environment
from broker.database import schema
from broker.settings import load_database_url


@click.command()
@click.option(
    "--to",
    type=click.IntRange(min=0),
    metavar="NUMBER",
    help="Stop at this migration. A lower number than the current one reverts the later "
    "migrations, and loses their data.",
)
def migrate(to: int | None) -> None:
    """Apply pending database migrations.

    Safe to repeat, to run several times at the same time, and to run while an older release serves.
    If it must wait, for example for a dump, it says so, and gives up after ten minutes.

    Needs only DATABASE_URL.
    """
    url = from_environment(load_database_url)
    with database_errors():
        steps = asyncio.run(schema.migrate(url, to=to, report=_print_progress))
    for step in steps:
        click.echo(step)
    click.echo("the schema is up to date" if not steps else "done")


def _print_progress(line: str) -> None:
    click.echo(line, err=True)
