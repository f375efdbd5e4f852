"""`broker audit replay` and `doubtful`: grants that ended after a backup was taken."""

import asyncio
import json
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TextIO

import asyncpg
import click

from broker.audit.keys import audit_keys
from broker.audit.reading import printable
from broker.audit.trail import AuditTrail
from broker.cli.complaints import settings_complaint
from broker.cli.on_database import QUERY_SECONDS, on_database
from broker.clock import SystemClock, rfc3339
from broker.crypto.sealing import Sealer, local_sealing_keys
from broker.database.database import Database
from broker.grants.account_changes import AccountChanges
from broker.grants.lookups import TokenLookups
from broker.grants.store import GrantStore
from broker.recovery.doubtful import live_grants
from broker.recovery.exported import ExportError, read_export
from broker.recovery.lost_endings import Ending, LostEndings
from broker.recovery.replay import Replayed, Replayer
from broker.secret import Secret
from broker.settings import SettingsError, load_database_url, load_storage
from broker.telemetry.metrics import Metrics

_PROGRESS_SECONDS = 5.0


@click.command(short_help="End grants again that a restored backup does not know to have ended.")
@click.argument("export", type=click.File("r", encoding="utf-8"))
@click.option("--dry-run", is_flag=True, help="Only tell what would be done.")
@click.option(
    "--accept-unrelated",
    is_flag=True,
    help="Go on though the export and the trail have no record in common.",
)
def replay(export: TextIO, *, dry_run: bool, accept_unrelated: bool) -> None:
    """End grants again that a restored backup does not know to have ended.

    EXPORT is what `broker audit export` wrote before the loss, from the SIEM for example; - is
    stdin. It should begin before the backup was taken. Whatever ended a grant in it, and is missing
    in the database's own audit trail, is done again: users' and callers' revocations, here and at
    Google, and Google's own security events. Each is audited. Grants that were consented to since
    are left alone.

    \b
    Best before brokers serve from the restored database; safe while they do, to
    break off, and to run again. Google is told by the first broker that serves.

    Needs DATABASE_URL and SECRET_KEY. Reads all of EXPORT before it changes anything. Exits with 1,
    nothing changed, if that is not an export, or of another installation, or tells nothing that the
    trail lacks; and, all done, if something is left in doubt.
    """
    try:
        url, secret_keys = load_storage(os.environ)
    except SettingsError as error:
        raise settings_complaint(error) from error

    async def work(database: Database) -> bool:
        lost = await _lost(database, export, accept_unrelated=accept_unrelated)
        _tell_lost(lost)
        replayer = _replayer(database, secret_keys)
        return await _replay_all(replayer, lost.endings, is_rehearsal=dry_run)

    if not _run(url, work):
        raise SystemExit(1)


@click.command(short_help="List every grant that may have ended since a backup was taken.")
@click.option(
    "--output", type=click.Choice(["table", "json"]), default="table", show_default=True
)  # fmt: skip
def doubtful(output: str) -> None:
    """List every grant that can be used, of a restored database: without an export of the audit
    trail, each may have been revoked after the backup was taken.

    Ask the callers, who sent their users' revocations, or whoever got the webhooks; revoke what
    ended, or, to be safe, all of it: these users then consent again.

    Needs only DATABASE_URL. User ids are shown whole: mind who sees the screen.
    """
    try:
        url = load_database_url(os.environ)
    except SettingsError as error:
        raise settings_complaint(error) from error

    async def work(database: Database) -> bool:
        count = 0
        if output == "table":
            click.echo("CONSENTED             LAST USED             STATUS  USER  ACCOUNT")
        async with database.transaction(within=QUERY_SECONDS) as connection:
            async for row in live_grants(connection):
                click.echo(_as_json(row) if output == "json" else _as_line(row))
                count += 1
        click.echo(f"{count} grants can be used", err=True)
        return True

    _run(url, work)


async def _lost(database: Database, export: TextIO, *, accept_unrelated: bool) -> LostEndings:
    lost = LostEndings()
    try:
        async with database.connection() as connection, _progress(lambda: f"{lost.records} read"):
            await lost.read(connection, read_export(export))
    except ExportError as error:
        raise click.ClickException(f"{export.name}: {error}") from error
    except UnicodeDecodeError as error:
        raise click.ClickException(f"{export.name} is not UTF-8 text: no export") from error
    if not lost.records:
        raise click.ClickException(f"{export.name} holds no record")
    if not lost.known and not accept_unrelated:
        raise click.ClickException(
            f"{export.name} and the audit trail have no record in common: it is another "
            "installation's, or begins after the backup (then export with an earlier --since, or "
            "give --accept-unrelated)"
        )
    if not lost.lost:
        raise click.ClickException(
            f"the audit trail has all {lost.records} records of {export.name}: it tells nothing of "
            "what came after the backup; export later ones, or see `broker audit doubtful`"
        )
    return lost


def _tell_lost(lost: LostEndings) -> None:
    assert lost.first_lost_at is not None  # noqa: S101  (something was lost)
    assert lost.last_lost_at is not None  # noqa: S101
    click.echo(
        f"the audit trail lacks {lost.lost} of {lost.records} records, from "
        f"{rfc3339(lost.first_lost_at)} to {rfc3339(lost.last_lost_at)}"
    )


def _replayer(database: Database, secret_keys: Sequence[Secret]) -> Replayer:
    clock, lookups = SystemClock(), TokenLookups(secret_keys)
    sealer = Sealer(local_sealing_keys(secret_keys))
    return Replayer(
        database=database,
        grants=GrantStore(database, sealer, clock, keep_access_tokens=False, lookups=lookups),
        changes=AccountChanges(lookups, clock),
        audit=AuditTrail(database, clock, Metrics(), audit_keys(secret_keys)),
        clock=clock,
    )


async def _replay_all(replayer: Replayer, endings: Sequence[Ending], *, is_rehearsal: bool) -> bool:
    """Whether nothing is left in doubt."""
    done: Counter[Replayed] = Counter()
    async with _progress(lambda: f"{done.total()} of {len(endings)}"):
        for ending in endings:
            became = await replayer.replay(ending, is_rehearsal=is_rehearsal)
            done[became] += 1
            if became is not Replayed.ALREADY:
                click.echo(_told(ending, became, is_rehearsal=is_rehearsal))
    counts = [
        f"{done[each]} {_verdict(each, is_rehearsal=is_rehearsal)}"
        for each in Replayed
        if done[each]
    ]
    click.echo(", ".join(counts) or "no grant had ended")
    return not done[Replayed.IN_DOUBT]


def _told(ending: Ending, became: Replayed, *, is_rehearsal: bool) -> str:
    verdict = _verdict(became, is_rehearsal=is_rehearsal)
    if became is Replayed.IN_DOUBT:
        verdict += ": somebody asked for its end, and was told that it may not have taken place"
    account = ending.account_sub or "all accounts"
    who = f"user {printable(ending.user_id)}, {printable(account)}"
    return f"{who}: {ending.how} {rfc3339(ending.record.at)}: {verdict}"


def _verdict(became: Replayed, *, is_rehearsal: bool) -> str:
    is_only_told = is_rehearsal and became is Replayed.ENDED
    return f"would be {became}" if is_only_told else str(became)


def _as_json(row: asyncpg.Record) -> str:
    return json.dumps(
        {
            "user_id": row["user_id"],
            "account_sub": row["google_sub"],
            "status": row["status"],
            "reason": row["reason"],
            "consented_at": rfc3339(row["consented_at"]),
            "last_used_at": rfc3339(row["last_used_at"]) if row["last_used_at"] else None,
        },
        separators=(",", ":"),
    )


def _as_line(row: asyncpg.Record) -> str:
    used = rfc3339(row["last_used_at"]) if row["last_used_at"] else "-"
    who = f"{printable(row['user_id'])}  {printable(row['google_sub'])}"
    return f"{rfc3339(row['consented_at']):<20}  {used:<20}  {row['status']}  {who}"


@asynccontextmanager
async def _progress(how_far: Callable[[], str]) -> AsyncIterator[None]:
    began = time.monotonic()

    async def tell() -> None:
        while True:
            await asyncio.sleep(_PROGRESS_SECONDS)
            click.echo(f"… {how_far()}, {time.monotonic() - began:.0f} s", err=True)

    telling = asyncio.create_task(tell())
    try:
        yield
    finally:
        telling.cancel()


def _run(url: Secret, work: Callable[[Database], Awaitable[Any]]) -> Any:
    """Do it on this database. Raises `click.ClickException`."""
    try:
        return on_database(url, work, connections=2)
    except asyncpg.PostgresError as error:
        raise click.ClickException(f"PostgreSQL refuses: {error}") from error
