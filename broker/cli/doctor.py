"""`broker doctor`: checks each part, and says how to mend what is wrong."""

import click


@click.command()
def doctor() -> None:
    """Check settings, database, secret source, Google, redirect URI, clock and clients file."""
    raise click.ClickException("not assembled yet")
