"""`python -m devstack.google_standin`: runs the stand-in as a process of its own."""

import os
import signal
import sys
import threading
from pathlib import Path

import click

from devstack.google_standin.model import Client
from devstack.google_standin.server import GoogleStandin
from devstack.google_standin.state import StateFileError


@click.command(help="Run a local stand-in for Google until interrupted.")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=int, default=0, help="0 picks a free one.")
@click.option(
    "--public-url",
    help="The address in the discovery document, if it differs from the one listened on.",
)
@click.option(
    "--state-file", type=click.Path(path_type=Path), help="Keeps the state between restarts."
)
@click.option("--client-id", required=True)
@click.option("--client-secret", envvar="STANDIN_CLIENT_SECRET", required=True)
@click.option("--client-name", default="Token broker", show_default=True)
@click.option("--redirect-uri", "redirect_uris", multiple=True, required=True)
@click.option("--token-lifetime", type=click.IntRange(min=1), default=3599, show_default=True)
def main(  # noqa: PLR0913  (one for each option)
    *,
    host: str,
    port: int,
    public_url: str | None,
    state_file: Path | None,
    client_id: str,
    client_secret: str,
    client_name: str,
    redirect_uris: tuple[str, ...],
    token_lifetime: int,
) -> None:
    client = Client(client_id, client_secret, list(redirect_uris), name=client_name)
    interrupted = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: interrupted.set())
    try:
        standin = GoogleStandin([client], state_file=state_file, public_url=public_url)
        standin.behave(token_lifetime=token_lifetime)
        address = standin.start(host, port)
    except (StateFileError, OSError) as error:
        sys.exit(f"google stand-in: {error}")
    print(f"Google stand-in: {address} (pid {os.getpid()})", flush=True)
    interrupted.wait()
    standin.stop()


main()
