"""`broker keys`: which keys the stored tokens are sealed with, and sealing them anew."""

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TextIO

import click

from broker.cli.complaints import settings_complaint
from broker.cli.on_database import on_database
from broker.crypto.sealing import Sealer, SealingKey, local_sealing_keys
from broker.database.database import Database
from broker.grants.lookups import TokenLookups
from broker.grants.resealing import PASSING, Resealer
from broker.recovery.opening import open_one_of_each_key
from broker.settings import SettingsError, load_storage

_PROGRESS_SECONDS = 5.0

Use = Mapping[tuple[str, str], int]
"""How many are sealed, by kind and key."""


@click.group(short_help="See what is sealed with which key, and reseal it.")
def keys() -> None:
    """The keys in SECRET_KEY: what is sealed with which, and sealing it anew with the first."""


@keys.command(short_help="Show how many tokens are sealed with which key.")
def status() -> None:
    """Show how many stored tokens are sealed with which key of SECRET_KEY.

    Needs DATABASE_URL and SECRET_KEY. Exits with 0 if only the first key is in use, else with 1.
    """

    async def look(resealer: Resealer, known: Sequence[SealingKey]) -> bool:
        return _told(await resealer.in_use(), known)

    sys.exit(0 if _run(look) else 1)


@keys.command(short_help="Check that a key from escrow opens what is stored.")
@click.argument("key_file", type=click.File("r", encoding="utf-8"))
def check(key_file: TextIO) -> None:
    """Check that a key from escrow opens what is stored: one row of each key that sealed any.

    \b
    KEY_FILE holds what SECRET_KEY would: one key, or several with commas between.
    It is read once, so it may be a pipe, and - is stdin:
      age --decrypt secret-key.age | broker keys check -

    Needs only DATABASE_URL; SECRET_KEY is not looked at, and no secret is shown. Exits with 0 if a
    row of each key was opened, 1 if one does not open, or if nothing is stored by which to tell.
    """
    try:
        given = key_file.read().strip()
        environ = {name: v for name, v in os.environ.items() if not name.startswith("SECRET_KEY")}
        url, secret_keys = load_storage({**environ, "SECRET_KEY": given})
    except SettingsError as error:
        raise settings_complaint(error) from error
    except UnicodeDecodeError as error:
        raise click.ClickException(f"{key_file.name} is not UTF-8 text") from error

    async def work(database: Database) -> bool:
        openings = await open_one_of_each_key(database, secret_keys)
        for opening in openings:
            click.echo(str(opening))
        if not openings:
            raise click.ClickException("nothing is stored: the key can't be checked")
        lasting = [opening for opening in openings if opening.lasts]
        return not any(opening.problem for opening in lasting or openings)

    if not on_database(url, work, connections=1):
        raise click.ClickException(f"{key_file.name} does not open what is stored")
    click.echo("the key opens what is stored")


@keys.command(short_help="Seal stored tokens anew with the first key.")
def reseal() -> None:
    """Seal stored tokens anew with the first key of SECRET_KEY, so that the others can go.

    \b
    Safe while brokers serve, to break off, and to run again. First let every
    broker have the new key as the first: one that has not goes on sealing with
    another.

    Needs DATABASE_URL and SECRET_KEY, with all keys. Exits with 0 if afterwards only the first key
    is in use, else with 1.
    """

    async def work(resealer: Resealer, known: Sequence[SealingKey]) -> bool:
        total = _left(await resealer.in_use(), known[0].id)
        progress = asyncio.create_task(_tell_progress(resealer, total))
        try:
            await resealer.run()
        finally:
            progress.cancel()
        click.echo(f"sealed anew: {resealer.tally.resealed}")
        if resealer.tally.unopened:
            click.echo(f"does not open with any key of SECRET_KEY: {resealer.tally.unopened}")
        return _told(await resealer.in_use(), known)

    sys.exit(0 if _run(work) else 1)


def _left(in_use: Use, first: str) -> int:
    """How many are to be sealed anew."""
    return sum(
        count for (kind, key), count in in_use.items() if key != first and kind not in PASSING
    )


def _told(in_use: Use, known: Sequence[SealingKey]) -> bool:
    """Whether only the first key is in use; says so."""
    names = {key.id: f"key {number}" for number, key in enumerate(known, start=1)}
    for (kind, key_id), count in in_use.items():
        click.echo(f"{names.get(key_id, 'a key that is not in SECRET_KEY')}: {count} {kind}")
    others = sum(count for (_, key), count in in_use.items() if key != known[0].id)
    passing = others - _left(in_use, known[0].id)
    if not others:
        rest = ": the others can go" if len(known) > 1 else ", and there is no other"
        click.echo(f"only key 1 is in use{rest}")
    elif others == passing:
        click.echo("the others can go once what waits is over: within the hour")
    else:
        click.echo("other keys than key 1 are in use")
    return not others


async def _tell_progress(resealer: Resealer, total: int) -> None:
    began = time.monotonic()
    while True:
        await asyncio.sleep(_PROGRESS_SECONDS)
        seconds = time.monotonic() - began
        click.echo(f"… {resealer.tally.resealed} of {total}, {seconds:.0f} s", err=True)


def _run(work: Callable[[Resealer, Sequence[SealingKey]], Awaitable[bool]]) -> bool:
    """Do it on the database of the environment. Raises `click.ClickException`."""
    try:
        url, secret_keys = load_storage(os.environ)
    except SettingsError as error:
        raise settings_complaint(error) from error

    async def reseal(database: Database) -> bool:
        known = local_sealing_keys(secret_keys)
        return await work(Resealer(database, Sealer(known), TokenLookups(secret_keys)), known)

    return on_database(url, reseal, connections=1)
