"""`broker keys`: the keys that sealed the stored tokens, resealing, and keys from escrow."""

import os
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TextIO

import click

from broker.cli.database import on_database
from broker.cli.environment import from_environment, settings_error
from broker.cli.output import progress
from broker.crypto.sealing import Sealer, SealingKey, local_sealing_keys
from broker.database.database import Database
from broker.grants.fingerprints import TokenFingerprints
from broker.grants.resealing import SHORT_LIVED_KINDS, Resealer
from broker.recovery.key_check import check_keys
from broker.settings import SettingsError, load_storage

_Counts = Mapping[tuple[str, str], int]
"""The number of sealed secrets by kind and key id."""


@click.group(short_help="Show what is sealed with which key, and reseal it.")
def keys() -> None:
    """The keys in SECRET_KEY: show what is sealed with which, and reseal it with the first."""


@keys.command(short_help="Show how many tokens are sealed with which key.")
def status() -> None:
    """Show how many stored tokens are sealed with which key of SECRET_KEY.

    Needs DATABASE_URL and SECRET_KEY. Exits with 0 if only the first key is in use, and with 1
    otherwise.
    """

    async def work(resealer: Resealer, known: Sequence[SealingKey]) -> bool:
        return _print_counts(await resealer.count_by_key(), known)

    sys.exit(0 if _run(work) else 1)


@keys.command(short_help="Check that a key from escrow opens what is stored.")
@click.argument("key_file", type=click.File("r", encoding="utf-8"))
def check(key_file: TextIO) -> None:
    """Check that a key from escrow opens what is stored: open one row of each sealing key.

    \b
    KEY_FILE has the form of SECRET_KEY: one key, or several with commas between.
    It is read once, so it may be a pipe; - is stdin:
      age --decrypt secret-key.age | broker keys check -

    Needs only DATABASE_URL; SECRET_KEY is ignored, and no secret is shown. Exits with 0 if a row of
    each key was opened, and with 1 if one does not open or if nothing is stored.
    """
    try:
        given = key_file.read().strip()
        environ = {name: v for name, v in os.environ.items() if not name.startswith("SECRET_KEY")}
        url, secret_keys = load_storage({**environ, "SECRET_KEY": given})
    except SettingsError as error:
        raise settings_error(error) from error
    except UnicodeDecodeError as error:
        raise click.ClickException(f"{key_file.name} is not UTF-8 text") from error

    async def work(database: Database) -> bool:
        checks = await check_keys(database, secret_keys)
        for each in checks:
            click.echo(str(each))
        if not checks:
            raise click.ClickException("nothing is stored: the key can't be checked")
        lasting = [each for each in checks if each.lasts]
        return not any(each.problem for each in lasting or checks)

    if not on_database(url, work):
        raise click.ClickException(f"{key_file.name} does not open what is stored")
    click.echo("the key opens what is stored")


@keys.command(short_help="Reseal stored tokens with the first key.")
def reseal() -> None:
    """Reseal stored tokens with the first key of SECRET_KEY, so that the others can be removed.

    \b
    Safe while brokers serve, to interrupt, and to repeat. First give every
    broker the new key as its first one: a broker without it keeps sealing with
    another.

    Needs DATABASE_URL and SECRET_KEY, with all keys. Exits with 0 if afterwards only the first key
    is in use, and with 1 otherwise.
    """

    async def work(resealer: Resealer, known: Sequence[SealingKey]) -> bool:
        total = _to_reseal(await resealer.count_by_key(), known[0].id)
        done = resealer.progress
        async with progress(lambda: f"{done.resealed} of {total}"):
            await resealer.run()
        click.echo(f"resealed: {done.resealed}")
        if done.unopened:
            click.echo(f"does not open with any key of SECRET_KEY: {done.unopened}")
        return _print_counts(await resealer.count_by_key(), known)

    sys.exit(0 if _run(work) else 1)


def _to_reseal(counts: _Counts, first: str) -> int:
    return sum(
        count
        for (kind, key), count in counts.items()
        if key != first and kind not in SHORT_LIVED_KINDS
    )


def _print_counts(counts: _Counts, known: Sequence[SealingKey]) -> bool:
    """Print the counts and a verdict; return True if only the first key is in use."""
    names = {key.id: f"key {number}" for number, key in enumerate(known, start=1)}
    for (kind, key_id), count in counts.items():
        click.echo(f"{names.get(key_id, 'a key that is not in SECRET_KEY')}: {count} {kind}")
    others = sum(count for (_, key), count in counts.items() if key != known[0].id)
    if not others:
        rest = ": the other keys can be removed" if len(known) > 1 else ", and there is no other"
        click.echo(f"only key 1 is in use{rest}")
    elif not _to_reseal(counts, known[0].id):
        click.echo(
            "the other keys can be removed once what they sealed has expired, within an hour"
        )
    else:
        click.echo("keys other than key 1 are in use")
    return not others


def _run(work: Callable[[Resealer, Sequence[SealingKey]], Awaitable[bool]]) -> bool:
    """Run on the database of the environment. Raises `click.ClickException`."""
    url, secret_keys = from_environment(load_storage)

    async def on_resealer(database: Database) -> bool:
        known = local_sealing_keys(secret_keys)
        resealer = Resealer(database, Sealer(known), TokenFingerprints(secret_keys))
        return await work(resealer, known)

    return on_database(url, on_resealer)
