"""`broker audit`: shows, exports and verifies the audit trail."""

import os
import re
import shutil
import sys
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

import asyncpg
import click

from broker.audit.batch_macs import AuditKeys, ChainHead, audit_keys
from broker.audit.reading import (
    RecordFilter,
    all_records,
    as_json,
    latest_records,
    newest_head,
    printable,
    timestamp,
)
from broker.audit.verification import TrailVerifier, VerificationProgress
from broker.cli.audit_replay import doubtful, replay
from broker.cli.database import on_database
from broker.cli.environment import from_environment
from broker.cli.output import format_table, progress
from broker.clock import rfc3339
from broker.database.database import Connection, Database
from broker.secret import Secret
from broker.settings import load_database_url, load_storage

_HEADING = (
    "AT", "ACTION", "OUTCOME", "CALLER", "USER", "ACCOUNT", "REQUEST", "BATCH", "SCOPES",
)  # fmt: skip
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


class _NotVerifiedError(click.ClickException):
    """The trail could not be verified; that is not a fault of the trail."""

    exit_code = 2


class _OutputError(Exception):
    """Stdout cannot be written to; the cause is the `OSError`."""


def _time(_ctx: click.Context, _param: click.Parameter, value: str | None) -> datetime | None:
    """Parse a time in RFC 3339, or an age."""
    if value is None:
        return None
    ago = re.fullmatch(r"([0-9]{1,6})([smhd])", value)
    try:
        if ago is not None:
            return datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        time = datetime.fromisoformat(value)
        return time.replace(tzinfo=time.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise click.BadParameter(
            f"{value!r} is not valid: use a time such as 2026-01-31T08:00:00Z, or an age such as "
            "2h or 3d"
        ) from error


def _heads(
    _ctx: click.Context, _param: click.Parameter, values: Sequence[str]
) -> Sequence[ChainHead]:
    """Parse each NUMBER:MAC, the form in which the broker logs it."""
    heads: list[ChainHead] = []
    for value in values:
        match = re.fullmatch(r"([0-9]{1,18}):([0-9a-fA-F]{64})", value)
        if match is None:
            raise click.BadParameter(
                f"{value!r} is not a head: use NUMBER:MAC from the log event audit_head"
            )
        heads.append(ChainHead(int(match[1]), bytes.fromhex(match[2])))
    return heads


def _heads_in_file(
    _ctx: click.Context, _param: click.Parameter, value: Path | None
) -> Sequence[ChainHead]:
    """Return every NUMBER:MAC in a text file, each once."""
    if value is None:
        return ()
    heads: dict[ChainHead, None] = {}
    with value.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            for match in re.finditer(r"\b([0-9]{1,18}):([0-9a-f]{64})\b", line):
                heads[ChainHead(int(match[1]), bytes.fromhex(match[2]))] = None
    if not heads:
        raise click.BadParameter(f"{value} has no head, NUMBER:MAC, in it")
    return tuple(heads)


def _filters(command: Callable[..., None]) -> Callable[..., None]:
    since = (
        "Records from this time on: 2026-01-31T08:00:00Z (UTC unless it has an offset), or an age "
        "such as 30m, 2h or 3d."
    )
    outcome = "Exact outcome, or its prefix before the colon (`failed` matches `failed:timeout`)."
    options = (
        click.option("--user", metavar="ID", help="Records about this user."),
        click.option("--caller", metavar="NAME", help="Records of this caller."),
        click.option("--account", metavar="SUB", help="Records about this Google account."),
        click.option("--action", metavar="ACTION", help="An action, such as token_handed_out."),
        click.option("--outcome", metavar="OUTCOME", help=outcome),
        click.option("--since", callback=_time, metavar="TIME", help=since),
        click.option(
            "--until", callback=_time, metavar="TIME", help="Records before this time; same format."
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.group(short_help="Read, export and verify the audit trail.")
def audit() -> None:
    """Read, export and verify the audit trail: which caller got or was refused the token of which
    user, when, with which scopes, and why.
    """


audit.add_command(replay)
audit.add_command(doubtful)


@audit.command()
@_filters
@click.option(
    "--limit",
    type=click.IntRange(1, 100_000),
    default=50,
    show_default=True,
    metavar="NUMBER",
    help="The largest number of records.",
)
@click.option("--json", "is_json", is_flag=True, help="Print JSON lines, as `export` does.")
def show(*, limit: int, is_json: bool, **filters: Any) -> None:
    """Show the latest records that match all filters, the newest last.

    Prints a table, or several lines per record if the terminal is too narrow for it.

    Needs only DATABASE_URL. User ids are shown in full.
    """

    async def run(connection: Connection) -> None:
        rows = await latest_records(connection, RecordFilter(**filters), limit)
        for line in map(as_json, rows) if is_json else _readable(rows):
            _write_line(line)
        if not rows:
            click.echo("no record matches", err=True)

    _run(from_environment(load_database_url), run)


def _readable(rows: Sequence[asyncpg.Record]) -> list[str]:
    """Return a table, or blocks if the terminal is too narrow for it."""
    if not rows:
        return []
    cells = [_cells(row) for row in rows]
    table = format_table(_HEADING, cells)
    is_too_wide = max(map(len, table)) > shutil.get_terminal_size().columns
    if sys.stdout.isatty() and is_too_wide:
        return [line for each in cells for line in _block(each)]
    return table


def _cells(row: asyncpg.Record) -> tuple[str, ...]:
    names = ("action", "outcome", "caller", "user_id", "account_sub", "request_id", "seal")
    return (
        timestamp(row["at"], "milliseconds"),
        *(printable(row[name]) for name in names),
        " ".join(map(printable, row["scopes"] or ())) or "-",
    )


def _block(cells: tuple[str, ...]) -> list[str]:
    """Two or three lines about one record."""
    at, action, outcome, caller, user, account, request, batch, scopes = cells
    who = (("caller", caller), ("user", user), ("account", account), ("request", request))
    named = [f"{name} {value}" for name, value in who if value != "-"]
    batch_words = "no batch" if batch == "-" else f"batch {batch}"
    lines = [f"{at}  {action}  {outcome}", "    " + ", ".join([*named, batch_words])]
    return [*lines, f"    {scopes}"] if scopes != "-" else lines


@audit.command(short_help="Write all matching records to stdout, as JSON lines.")
@_filters
def export(**filters: Any) -> None:
    """Write all records that match all filters to stdout, as JSON lines, in constant memory.

    \b
    Fields: id, at, action, outcome, caller, user_id, account_sub, scopes,
    request_id, seal (number of the batch; null in records of older releases).

    Writes the head of the chain, as it was before the first record was read, to stderr: keep it
    with the export, for `verify --heads-from`.

    Needs only DATABASE_URL, which may be that of a read replica.
    """

    async def run(connection: Connection) -> None:
        head = await newest_head(connection)
        async for row in all_records(connection, RecordFilter(**filters)):
            _write_line(as_json(row))
        if head is not None:
            click.echo(f"head {head}", err=True)

    _run(from_environment(load_database_url), run)


@audit.command(short_help="Find records that were changed, removed or added later.")
@click.option(
    "--head",
    "heads",
    callback=_heads,
    metavar="NUMBER:MAC",
    multiple=True,
    help="A head of the chain from the broker's log: it must still be in the chain. Repeatable.",
)
@click.option(
    "--heads-from",
    "heads_in_file",
    callback=_heads_in_file,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="A text file with heads, such as the broker's log, or what `export` wrote to stderr.",
)
@click.option(
    "--unsealed-until",
    callback=_time,
    metavar="TIME",
    help="When the last replica of a release without audit batches ended, if that was later than a "
    "day after the migration that introduced them.",
)
def verify(
    heads: Sequence[ChainHead], heads_in_file: Sequence[ChainHead], unsealed_until: datetime | None
) -> None:
    """Verify the whole audit trail, and print a line for each fault.

    \b
      changed      a record is not as it was written
      removed      records of a batch are gone
      added        records that no broker wrote
      gap          batches are missing, or the whole chain
      forged batch the MAC is invalid, or the batch is out of place
      unknown key  signed with a key that SECRET_KEY no longer has
      rolled back  to an earlier batch: a given head is newer than the newest
                   batch, or its batch is another one now. Causes: a restored
                   backup, a failover that lost commits, or a cut-off end

    Only --head or --heads-from can prove that the newest batches, or all of them, were not removed.

    Needs DATABASE_URL and SECRET_KEY. Exits with 0 if the trail is intact, 1 if it has faults, 2 if
    it could not be verified.
    """
    is_intact = True

    try:
        url, secret_keys = from_environment(load_storage)

        async def run(connection: Connection) -> None:
            nonlocal is_intact
            known = [*heads, *heads_in_file]
            is_intact = await _verify(connection, audit_keys(secret_keys), known, unsealed_until)

        _run(url, run)
    except click.ClickException as error:
        raise _NotVerifiedError(error.message) from error
    if not is_intact:
        sys.exit(1)


async def _verify(
    connection: Connection,
    keys: AuditKeys,
    heads: Sequence[ChainHead],
    unsealed_until: datetime | None,
) -> bool:
    verifier = TrailVerifier(keys, heads=heads, unsealed_until=unsealed_until)
    done = verifier.progress
    faults = 0
    async with progress(lambda: f"{done.records} records, {done.batches} batches"):
        async for fault in verifier.faults(connection):
            faults += 1
            _write_line(str(fault))
    for line in _summary(done, faults):
        _write_line(line)
    return faults == 0


def _summary(done: VerificationProgress, faults: int) -> list[str]:
    lines: list[str] = []
    if done.checkpoint is not None:
        deleted = done.checkpoint
        lines.append(
            f"retention deleted {deleted.records} records up to {rfc3339(deleted.until)} (batches "
            f"up to {deleted.number})"
        )
        if deleted.faults:
            lines.append(f"{deleted.faults} faults had been found in what retention deleted")
        if deleted.unverified:
            lines.append(
                f"{deleted.unverified} of the batches that retention deleted could not be "
                "verified: the broker did not have their keys"
            )
    if done.records_without_batch:
        lines.append(
            f"{done.records_without_batch} records without a batch, from older releases: they "
            "cannot be verified"
        )
    lines.extend(
        f"head {head.number} is older than what retention has left" for head in done.not_compared
    )
    if done.head is not None and done.head.number:
        lines.append(f"head {done.head}")
    verdict = "intact" if not faults else "1 fault" if faults == 1 else f"{faults} faults"
    lines.append(f"{verdict}: {done.records} records in {done.batches} batches")
    return lines


def _run(url: Secret, work: Callable[[Connection], Awaitable[None]]) -> None:
    """Run on one connection, and flush stdout. Raises `click.ClickException`."""

    async def on_connection(database: Database) -> None:
        async with database.connection() as connection:
            await work(connection)

    try:
        on_database(url, on_connection)
        sys.stdout.flush()
    except BrokenPipeError:
        _exit_without_output()
    except _OutputError as error:
        if not isinstance(error.__cause__, BrokenPipeError):
            raise click.ClickException(str(error)) from error
        _exit_without_output()


def _write_line(line: str) -> None:
    """Write a line to stdout; its errors differ in type from the database's OSErrors."""
    try:
        sys.stdout.write(line + "\n")
    except OSError as error:
        raise _OutputError(f"can't write to stdout: {error.strerror}") from error


def _exit_without_output() -> NoReturn:
    """Exit after the reader, such as `head`, has closed the pipe."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(1)
