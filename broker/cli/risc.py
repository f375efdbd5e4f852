"""`broker risc`: sets up the stream of Google's security events, and checks that they arrive.

The service account's key is read for one call, and never shown or kept.
"""

import asyncio
import os
import secrets
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import click

from broker.cli.database import on_database
from broker.cli.environment import from_environment
from broker.clock import SystemClock
from broker.database.database import Database
from broker.google.errors import GoogleUnavailable
from broker.google.http import google_http_client
from broker.google.risc_management import (
    LONGEST_KEY_FILE,
    RISC_API,
    RiscApiError,
    RiscManagement,
    ServiceAccount,
    ServiceAccountError,
    read_service_account,
)
from broker.google.security_events import EVENT_TYPES
from broker.security_events.inbox import has_arrived
from broker.security_events.routes import EVENTS_PATH
from broker.settings import (
    check_outbound_variables,
    is_loopback_host,
    is_secure_url,
    load_database_url,
)

_POLL_SECONDS = 0.5
_Result = TypeVar("_Result")

_service_account_option = click.option(
    "--service-account",
    "key_file",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="The JSON key of a service account with the role RISC Configuration Admin.",
)
_api_option = click.option(
    "--api",
    default=RISC_API,
    show_default=True,
    metavar="URL",
    help="The address of Google's RISC API; another one only for tests.",
)


@click.group(short_help="Set up and check the stream of Google's security events.")
def risc() -> None:
    """Google's security events (Cross-Account Protection): set up and check their stream."""


@risc.command(short_help="Register this broker for Google's security events.")
@_service_account_option
@click.option(
    "--receiver",
    metavar="URL",
    help=f"The address that receives events; by default {EVENTS_PATH} at the origin of the first "
    "GOOGLE_REDIRECT_URI.",
)
@_api_option
def register(key_file: Path, receiver: str | None, api: str) -> None:
    """Register this broker for Google's security events.

    Safe to repeat. The receiver's domain must be one of the project's authorized domains.
    """
    url = _receiver(receiver)
    _call(key_file, api, lambda google: google.register(url))
    click.echo(f"registered: Google sends {len(EVENT_TYPES)} types of events to {url}")
    click.echo("Check that they arrive: broker risc verify --service-account …", err=True)


@risc.command()
@_service_account_option
@_api_option
def status(key_file: Path, api: str) -> None:
    """Show which events Google sends, and to which address. Exits with 1 if it sends none."""
    stream = _call(key_file, api, lambda google: google.stream())
    click.echo(f"receiver: {stream.receiver}")
    click.echo(f"status:   {stream.status}")
    for event in sorted(stream.events):
        click.echo(f"event:    {event}")
    for event in sorted(set(EVENT_TYPES) - set(stream.events)):
        click.echo(f"missing:  {event}")
    if stream.status != "enabled":
        raise click.ClickException("the stream is not enabled; run: broker risc register")


@risc.command()
@_service_account_option
@click.option(
    "--wait",
    type=click.IntRange(min=0, max=600),
    default=30,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for the event, if DATABASE_URL is set.",
)
@_api_option
def verify(key_file: Path, wait: int, api: str) -> None:
    """Have Google send a test event, and check that it arrives.

    With DATABASE_URL, waits until a broker has received it, and exits with 1 if none does.
    """
    state = f"broker-{secrets.token_hex(8)}"
    _call(key_file, api, lambda google: google.verify(state))
    click.echo(f"requested a verification event with state {state} from Google")
    if not (os.environ.get("DATABASE_URL") or os.environ.get("DATABASE_URL_FILE")):
        click.echo(
            "DATABASE_URL is not set; look for the event in the audit trail: action "
            "security_event, outcome verification:noted",
            err=True,
        )
        return
    if not _arrives(state, wait):
        raise click.ClickException(
            f"the event did not arrive within {wait} s; can Google reach the receiver "
            "(broker risc status)?"
        )
    click.echo("the event arrived")


def _receiver(given: str | None) -> str:
    """Return the receiver's address. Raises `ClickException`."""
    url = given
    if url is None:
        redirect = os.environ.get("GOOGLE_REDIRECT_URI", "").split(",")[0].strip()
        if not redirect:
            raise click.ClickException("set GOOGLE_REDIRECT_URI, or give --receiver")
        if not is_secure_url(redirect):
            raise click.ClickException(
                "GOOGLE_REDIRECT_URI must be https (plain http only on a loopback host)"
            )
        parts = urlsplit(redirect)
        url = f"{parts.scheme}://{parts.netloc}{EVENTS_PATH}"
    if not is_secure_url(url) or not url.isprintable():
        raise click.ClickException(
            "the receiver must be an https address (plain http only on a loopback host)"
        )
    if is_loopback_host(urlsplit(url).hostname):
        click.echo("Note: Google cannot reach a loopback address", err=True)
    return url


def _call(
    key_file: Path, api: str, action: Callable[[RiscManagement], Awaitable[_Result]]
) -> _Result:
    """Call the API. Raises `ClickException` with one line for any failure."""
    if not is_secure_url(api) or not api.isprintable():
        raise click.ClickException("--api must be https (plain http only on a loopback host)")
    from_environment(check_outbound_variables)
    account = _read_key(key_file)

    async def call() -> _Result:
        async with google_http_client() as http:
            return await action(RiscManagement(http, account, SystemClock(), api=api))

    try:
        return asyncio.run(call())
    except ServiceAccountError as error:
        raise click.ClickException(f"{key_file} can't be used: {error}") from error
    except RiscApiError as error:
        hint = "; run: broker risc register" if error.status == 404 else ""
        raise click.ClickException(f"{error}{hint}") from error
    except GoogleUnavailable as error:
        raise click.ClickException(f"Google's RISC API is unavailable: {error.reason}") from error


def _read_key(key_file: Path) -> ServiceAccount:
    try:
        with key_file.open("rb") as file:
            content = file.read(LONGEST_KEY_FILE + 1)
        return read_service_account(content.decode())
    except OSError as error:
        raise click.ClickException(f"can't read {key_file}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise click.ClickException(f"{key_file} can't be used: it is not UTF-8") from None
    except ServiceAccountError as error:
        raise click.ClickException(f"{key_file} can't be used: {error}") from error


def _arrives(state: str, seconds: int) -> bool:
    """Return True once a broker on this database has received the event, False after a timeout."""

    async def wait(database: Database) -> bool:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        shows_progress = sys.stderr.isatty()
        try:
            while not await has_arrived(database, state):
                left = deadline - loop.time()
                if left <= 0:
                    return False
                if shows_progress:
                    click.echo(f"\rwaiting, {left:3.0f} s left ", nl=False, err=True)
                await asyncio.sleep(_POLL_SECONDS)
        finally:
            if shows_progress:
                click.echo("", err=True)
        return True

    return on_database(from_environment(load_database_url), wait)
