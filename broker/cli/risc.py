"""`broker risc`: sets up the stream of Google's security events, and looks whether they arrive.

The service account's key is read for the call and never shown or kept.
"""

import asyncio
import os
import secrets
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import asyncpg
import click

from broker.cli.complaints import settings_complaint
from broker.clock import SystemClock
from broker.database.database import Database, StorageUnavailable
from broker.database.schema import SchemaError, applied_migrations, check_schema
from broker.google.errors import GoogleUnavailable
from broker.google.http import google_http_client
from broker.google.risc_management import RISC_API, RiscApiError, RiscManagement
from broker.google.security_events import EVENT_TYPES
from broker.google.service_account import (
    LONGEST_KEY_FILE,
    ServiceAccount,
    ServiceAccountError,
    read_service_account,
)
from broker.security_events.inbox import has_arrived
from broker.settings import (
    SettingsError,
    is_loopback_host,
    is_secure_url,
    load_database_url,
    load_way_out,
)

_EVENTS_PATH = "/auth/google/risc"
_LOOK_SECONDS = 0.5
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
    help="Where Google's RISC API is; another only for tests.",
)


@click.group(short_help="Set up and check the stream of Google's security events.")
def risc() -> None:
    """Google's security events (Cross-Account Protection): set up and check their stream."""


@risc.command(short_help="Have Google send its security events here.")
@_service_account_option
@click.option(
    "--receiver",
    metavar="URL",
    help=f"Where events go; by default {_EVENTS_PATH} at the origin of the first "
    "GOOGLE_REDIRECT_URI.",
)
@_api_option
def register(key_file: Path, receiver: str | None, api: str) -> None:
    """Have Google send its security events to this broker, from now on.

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
    """Show where Google sends which events. Exits with 1 if it sends none."""
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
    help="How long to wait for it, if DATABASE_URL is set.",
)
@_api_option
def verify(key_file: Path, wait: int, api: str) -> None:
    """Have Google send a test event, and see whether it arrives.

    With DATABASE_URL, waits until a broker has taken it in, and exits with 1 if none does.
    """
    state = f"broker-{secrets.token_hex(8)}"
    _call(key_file, api, lambda google: google.verify(state))
    click.echo(f"asked Google for a verification event with state {state}")
    if not (os.environ.get("DATABASE_URL") or os.environ.get("DATABASE_URL_FILE")):
        click.echo(
            "DATABASE_URL is not set, so whether it arrives is for the audit trail to say: action "
            "security_event, outcome verification:noted",
            err=True,
        )
        return
    if not asyncio.run(_arrives(state, wait)):
        raise click.ClickException(
            f"it has not arrived within {wait} s; is the receiver reachable from outside? "
            "(broker risc status)"
        )
    click.echo("it has arrived")


def _receiver(given: str | None) -> str:
    """The receiver's address. Raises `ClickException`."""
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
        url = f"{parts.scheme}://{parts.netloc}{_EVENTS_PATH}"
    if not is_secure_url(url) or not url.isprintable():
        raise click.ClickException(
            "the receiver must be an https address (plain http only on a loopback host)"
        )
    if is_loopback_host(urlsplit(url).hostname):
        click.echo("Note: a loopback address is out of Google's reach", err=True)
    return url


def _call(
    key_file: Path, api: str, action: Callable[[RiscManagement], Awaitable[_Result]]
) -> _Result:
    """Any failure ends the command with one line."""
    if not is_secure_url(api) or not api.isprintable():
        raise click.ClickException("--api must be https (plain http only on a loopback host)")
    try:
        load_way_out(os.environ)
    except SettingsError as error:
        raise settings_complaint(error) from error
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
        raise click.ClickException(f"Google's RISC API can't be used: {error.reason}") from error


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


async def _arrives(state: str, seconds: int) -> bool:
    """Whether a broker on this database takes the event in before the time is over."""
    try:
        url = load_database_url(os.environ)
    except SettingsError as error:
        raise settings_complaint(error) from error
    database = Database(url)
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    shows_progress = sys.stderr.isatty()
    try:
        check_schema(await applied_migrations(url))
        await database.open()
        while not await has_arrived(database, state):
            if loop.time() >= deadline:
                return False
            if shows_progress:
                click.echo(f"\rwaiting, {deadline - loop.time():3.0f} s left ", nl=False, err=True)
            await asyncio.sleep(_LOOK_SECONDS)
    except (StorageUnavailable, SchemaError, asyncpg.PostgresError, ValueError) as error:
        raise click.ClickException(f"the database can't be used: {error}") from error
    finally:
        if shows_progress:
            click.echo("", err=True)
        await database.close()
    return True
