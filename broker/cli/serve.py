"""`broker serve`: runs the three listeners until it gets a signal."""

import asyncio
import signal
import sys

import click

from broker.app import StartError, serve_until
from broker.cli.environment import from_environment
from broker.server.file_descriptors import raise_limit
from broker.settings import Settings, load_settings
from broker.telemetry.logs import configure_logging

if sys.platform == "win32":
    from asyncio import new_event_loop
else:
    from uvloop import new_event_loop


@click.command(short_help="Serve the public, internal and ops listeners.")
def serve() -> None:
    """Serve the public, internal and ops listeners until SIGTERM or Ctrl-C."""
    settings = from_environment(load_settings)
    configure_logging(settings.log_level)
    raise_limit()
    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(_serve(settings))
    except StartError as error:
        raise click.ClickException(str(error)) from error


async def _serve(settings: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await serve_until(stop, settings)
