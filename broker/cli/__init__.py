"""The `broker` command. Every command ends with a clear line and a non-zero status on bad input."""

import click

from broker import __version__
from broker.cli.clients import clients
from broker.cli.doctor import doctor
from broker.cli.migrate import migrate
from broker.cli.serve import serve


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="broker")
def main() -> None:
    """Own the Google OAuth dance, and hand short-lived access tokens to internal services.

    Everything is configured by environment variables; docs/configuration.md lists them all.
    """


main.add_command(serve)
main.add_command(migrate)
main.add_command(doctor)
main.add_command(clients)
