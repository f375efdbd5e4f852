"""`broker audit`: who got whose token, when, with which scopes, and why was it refused."""

import asyncio
import os
import re
import shutil
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

import asyncpg
import click

from broker.audit.batch_macs import Head, SealKeys
from broker.audit.keys import audit_keys
from broker.audit.reading import (
    Filter,
    all_records,
    as_blocks,
    as_json,
    as_table,
    latest_records,
    newest_head,
)
from broker.audit.verification import Tally, Verification
from broker.cli.complaints import settings_complaint
from broker.cli.replay import doubtful, replay
from broker.clock import rfc3339
from broker.database.database import Connection, Database, StorageUnavailable
from broker.database.schema import SchemaError, applied_migrations, check_schema
from broker.secret import Secret
from broker.settings import SettingsError, load_database_url, load_storage

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_QUERY_SECONDS = 3600.0
_PROGRESS_SECONDS = 5.0


class _CouldNotLookError(click.ClickException):
    """Nothing was found, for nothing could be looked at."""

    exit_code = 2


class _OutputError(Exception):
    """Stdout takes no more; the cause is the `OSError`."""


def _moment(_ctx: click.Context, _param: click.Parameter, value: str | None) -> datetime | None:
    """RFC 3339, or how long ago."""
    if value is None:
        return None
    ago = re.fullmatch(r"([0-9]{1,6})([smhd])", value)
    try:
        if ago is not None:
            return datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        moment = datetime.fromisoformat(value)
        return moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise click.BadParameter(
            f"{value!r} is neither like 2026-01-31T08:00:00Z nor like 2h or 3d"
        ) from error


def _heads(_ctx: click.Context, _param: click.Parameter, values: Sequence[str]) -> Sequence[Head]:
    """NUMBER:MAC each, as the broker logs it."""
    heads: list[Head] = []
    for value in values:
        match = re.fullmatch(r"([0-9]{1,18}):([0-9a-fA-F]{64})", value)
        if match is None:
            raise click.BadParameter(f"{value!r} is not a head as the broker logs it")
        heads.append(Head(int(match[1]), bytes.fromhex(match[2])))
    return heads


def _heads_in(_ctx: click.Context, _param: click.Parameter, value: Path | None) -> Sequence[Head]:
    """Every NUMBER:MAC in a text, each once."""
    if value is None:
        return ()
    heads: dict[Head, None] = {}
    with value.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            for match in re.finditer(r"\b([0-9]{1,18}):([0-9a-f]{64})\b", line):
                heads[Head(int(match[1]), bytes.fromhex(match[2]))] = None
    if not heads:
        raise click.BadParameter(f"{value} has no head, NUMBER:MAC, in it")
    return tuple(heads)


def _filters(command: Callable[..., None]) -> Callable[..., None]:
    since = (
        "Not before: 2026-01-31T08:00:00Z (UTC unless it says otherwise), or how long ago: 30m, "
        "2h, 3d."
    )
    outcome = "Whole, or what stands before its colon."
    options = (
        click.option("--user", metavar="ID", help="About this user."),
        click.option("--caller", metavar="NAME", help="Of this caller."),
        click.option("--account", metavar="SUB", help="About this Google account."),
        click.option("--action", metavar="ACTION", help="Such as token_handed_out."),
        click.option("--outcome", metavar="OUTCOME", help=outcome),
        click.option("--since", callback=_moment, metavar="TIME", help=since),
        click.option("--until", callback=_moment, metavar="TIME", help="Before; the same."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.group(short_help="Read, export and verify the audit trail.")
def audit() -> None:
    """The audit trail: who got whose token, when, with which scopes, and why was it refused."""


audit.add_command(replay)
audit.add_command(doubtful)


@audit.command()
@_filters
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True)
@click.option("--json", "is_json", is_flag=True, help="JSON lines, as of export.")
def show(*, limit: int, is_json: bool, **filters: Any) -> None:
    """Show the last records that fit all filters, the newest at the end.

    A table; on a terminal that is too narrow for it, some lines for each record.

    Needs only DATABASE_URL. User ids are shown whole: mind who sees the screen.
    """

    async def run(connection: Connection) -> None:
        rows = await latest_records(connection, Filter(**filters), limit)
        for line in map(as_json, rows) if is_json else _for_people(rows):
            _say(line)
        if not rows:
            click.echo("no record fits", err=True)

    _run(_database_url(), run)


def _for_people(rows: Sequence[asyncpg.Record]) -> list[str]:
    """A table; lines that a terminal would fold are unfolded into several."""
    table = as_table(rows)
    is_too_wide = sys.stdout.isatty() and max(map(len, table), default=0) > _columns()
    return as_blocks(rows) if is_too_wide else table


def _columns() -> int:
    return shutil.get_terminal_size().columns


@audit.command(short_help="Write all records that fit to stdout, as JSON lines.")
@_filters
def export(**filters: Any) -> None:
    """Write all records that fit all filters to stdout, as JSON lines, in constant memory.

    \b
    Fields: id, at, action, outcome, caller, user_id, account_sub, scopes,
    request_id, seal (its number; null for a record of a release before seals).

    Writes the head of the trail, as it was before the first record was read, to stderr: keep it
    with the export, for `verify --heads-from`.

    Needs only DATABASE_URL, which may be a replica's.
    """

    async def run(connection: Connection) -> None:
        head = await newest_head(connection)
        async for row in all_records(connection, Filter(**filters)):
            _say(as_json(row))
        if head is not None:
            click.echo(f"head {head}", err=True)

    _run(_database_url(), run)


@audit.command(short_help="Find records that were changed, removed or added later.")
@click.option(
    "--head",
    "heads",
    callback=_heads,
    metavar="NUMBER:MAC",
    multiple=True,
    help="A head of the trail from the broker's log: it must still be there. Repeatable.",
)
@click.option(
    "--heads-from",
    "heads_in_file",
    callback=_heads_in,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The same for every head in a text, such as the broker's log, or what `export` wrote to "
    "stderr.",
)
@click.option(
    "--unsealed-until",
    callback=_moment,
    metavar="TIME",
    help="When the last replica of a release without seals ended, if that was later than a day "
    "after the migration that brought seals.",
)
def verify(
    heads: Sequence[Head], heads_in_file: Sequence[Head], unsealed_until: datetime | None
) -> None:
    """Look through the whole audit trail, and tell each fault in a line of its own.

    \b
      changed      a record is not as it was written
      removed      records of a batch are gone
      added        records that no broker wrote
      gap          seals are missing, their records with them, or all seals
      forged seal  made without SECRET_KEY, or not in its place
      unknown key  made with a key that SECRET_KEY no longer has
      rolled back  to an earlier seal: a given head is newer than the newest
                   seal, or its seal is another one now. A restored backup does
                   that, a failover that lost commits, or who cut the end off

    Whether the newest seals are gone, or all of them with their records, only a --head or
    --heads-from can tell for sure.

    Needs DATABASE_URL and SECRET_KEY. Exits with 0 if all is whole, 1 if not, 2 if it could not
    look.
    """
    try:
        url, secret_keys = load_storage(os.environ)
    except SettingsError as error:
        raise _CouldNotLookError(settings_complaint(error).message) from error
    is_whole = True

    async def run(connection: Connection) -> None:
        nonlocal is_whole
        known = [*heads, *heads_in_file]
        is_whole = await _verify(connection, audit_keys(secret_keys), known, unsealed_until)

    try:
        _run(url, run)
    except click.ClickException as error:
        raise _CouldNotLookError(error.message) from error
    if not is_whole:
        sys.exit(1)


async def _verify(
    connection: Connection,
    keys: SealKeys,
    heads: Sequence[Head],
    unsealed_until: datetime | None,
) -> bool:
    verification = Verification(keys, heads=heads, unsealed_until=unsealed_until)
    progress = asyncio.create_task(_tell_progress(verification.tally))
    faults = 0
    try:
        async for fault in verification.faults(connection):
            faults += 1
            _say(str(fault))
    finally:
        progress.cancel()
    for line in _summary(verification.tally, faults):
        _say(line)
    return faults == 0


async def _tell_progress(tally: Tally) -> None:
    began = time.monotonic()
    while True:
        await asyncio.sleep(_PROGRESS_SECONDS)
        seconds = time.monotonic() - began
        click.echo(f"… {tally.records} records, {tally.seals} seals, {seconds:.0f} s", err=True)


def _summary(tally: Tally, faults: int) -> list[str]:
    lines: list[str] = []
    if tally.checkpoint is not None:
        gone = tally.checkpoint
        lines.append(
            f"retention deleted {gone.records} records up to {rfc3339(gone.until)} (seals up to "
            f"{gone.number})"
        )
        if gone.faults:
            lines.append(f"among what retention deleted, {gone.faults} faults had been found")
        if gone.unverified:
            lines.append(
                f"{gone.unverified} of the seals that retention deleted were of keys that the "
                "broker did not have: nothing can be said of their records"
            )
    if tally.unsealed:
        lines.append(
            f"{tally.unsealed} records of releases before seals: nothing can be said of them"
        )
    lines.extend(
        f"head {head.number} is older than what retention has left" for head in tally.not_compared
    )
    if tally.head is not None and tally.head.number:
        lines.append(f"head {tally.head}")
    verdict = "whole" if not faults else "1 fault" if faults == 1 else f"{faults} faults"
    lines.append(f"{verdict}: {tally.records} records under {tally.seals} seals")
    return lines


def _database_url() -> Secret:
    try:
        return load_database_url(os.environ)
    except SettingsError as error:
        raise settings_complaint(error) from error


def _run(url: Secret, work: Callable[[Connection], Coroutine[Any, Any, None]]) -> None:
    """Do it on a connection of its own. Raises `click.ClickException`."""

    async def run() -> None:
        async with _connected(url) as connection:
            await work(connection)

    try:
        asyncio.run(run())
        sys.stdout.flush()
    except BrokenPipeError:
        _stop_writing()
    except _OutputError as error:
        if not isinstance(error.__cause__, BrokenPipeError):
            raise click.ClickException(str(error)) from error
        _stop_writing()
    except StorageUnavailable as error:
        raise click.ClickException(f"the database can't be reached: {error}") from error
    except SchemaError as error:
        raise click.ClickException(str(error)) from error
    except asyncpg.PostgresError as error:
        raise click.ClickException(f"PostgreSQL refuses: {error}") from error


def _say(line: str) -> None:
    """A line to stdout, whose faults are not to be taken for the database's."""
    try:
        sys.stdout.write(line + "\n")
    except OSError as error:
        raise _OutputError(f"can't write to stdout: {error.strerror}") from error


def _stop_writing() -> NoReturn:
    """Whoever was reading has seen enough, such as `head`."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(1)


@asynccontextmanager
async def _connected(url: Secret) -> AsyncIterator[Connection]:
    check_schema(await applied_migrations(url))
    database = Database(url, max_connections=1, command_seconds=_QUERY_SECONDS)
    await database.open()
    try:
        async with database.connection() as connection:
            yield connection
    finally:
        await database.close()
