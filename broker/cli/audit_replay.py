"""`broker audit replay` and `doubtful`: revocations that a restored backup does not contain."""

import json
from collections import Counter
from collections.abc import Sequence
from typing import TextIO

import asyncpg
import click

from broker.audit.batch_macs import audit_keys
from broker.audit.reading import printable
from broker.audit.trail import AuditTrail
from broker.cli.database import QUERY_SECONDS, on_database
from broker.cli.environment import from_environment
from broker.cli.output import progress
from broker.clock import SystemClock, rfc3339
from broker.crypto.sealing import Sealer, local_sealing_keys
from broker.database.database import Database
from broker.grants.account_grants import AccountGrants
from broker.grants.fingerprints import TokenFingerprints
from broker.grants.store import GrantStore
from broker.recovery.lost_revocations import (
    ExportError,
    LostRevocation,
    LostRevocations,
    read_export,
)
from broker.recovery.replay import Replayer, ReplayOutcome, live_grants
from broker.secret import Secret
from broker.settings import load_database_url, load_storage
from broker.telemetry.metrics import Metrics

_CONNECTIONS = 2


@click.command(short_help="Repeat revocations that a restored backup does not contain.")
@click.argument("export", type=click.File("r", encoding="utf-8"))
@click.option("--dry-run", is_flag=True, help="Only print what would be done.")
@click.option(
    "--accept-unrelated",
    is_flag=True,
    help="Continue even if the export and the trail have no record in common.",
)
def replay(export: TextIO, *, dry_run: bool, accept_unrelated: bool) -> None:
    """Repeat revocations that a restored backup does not contain.

    EXPORT is the output of `broker audit export` from before the loss, for example from the SIEM; -
    is stdin. It should begin before the backup. Every revocation in it that the database's own
    audit trail lacks is repeated and audited: those of users and callers here and at Google, and
    the security events of Google. Grants that were consented to again since are skipped.

    \b
    Run it before brokers serve from the restored database, if possible. It is
    safe while they serve, to interrupt, and to repeat. The first broker that
    serves sends the revocations to Google.

    Needs DATABASE_URL and SECRET_KEY. Reads all of EXPORT before it changes anything. Exits with 1
    and changes nothing if EXPORT is not an export, is from another installation, or has no record
    that the trail lacks. Also exits with 1 if a revocation is left in doubt.
    """
    url, secret_keys = from_environment(load_storage)

    async def work(database: Database) -> bool:
        lost = await _read_lost(database, export, accept_unrelated=accept_unrelated)
        _print_lost(lost)
        replayer = _replayer(database, secret_keys)
        return await _replay_all(replayer, lost.revocations, is_dry_run=dry_run)

    if not on_database(url, work, connections=_CONNECTIONS):
        raise SystemExit(1)


@click.command(short_help="List every grant that may have been revoked since a backup.")
@click.option(
    "--output",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="The format; json is one object per line.",
)
def doubtful(output: str) -> None:
    """List every usable grant of a restored database: without an export of the audit trail, each
    may have been revoked after the backup.

    Ask the callers, which sent the revocations of their users, or the receivers of webhooks. Revoke
    the grants that had been revoked or, to be safe, all of them: these users then consent again.

    Needs only DATABASE_URL. User ids are shown in full.
    """

    async def work(database: Database) -> None:
        count = 0
        if output == "table":
            click.echo("CONSENTED             LAST USED             STATUS  USER  ACCOUNT")
        async with database.transaction(within=QUERY_SECONDS) as connection:
            async for row in live_grants(connection):
                click.echo(_as_json(row) if output == "json" else _as_line(row))
                count += 1
        click.echo(f"{count} usable grants", err=True)

    on_database(from_environment(load_database_url), work, connections=_CONNECTIONS)


async def _read_lost(
    database: Database, export: TextIO, *, accept_unrelated: bool
) -> LostRevocations:
    lost = LostRevocations()
    try:
        async with database.connection() as connection, progress(lambda: f"{lost.records} read"):
            await lost.read(connection, read_export(export))
    except ExportError as error:
        raise click.ClickException(f"{export.name}: {error}") from error
    except UnicodeDecodeError as error:
        raise click.ClickException(
            f"{export.name} is not UTF-8 text, so it is not an export"
        ) from error
    if not lost.records:
        raise click.ClickException(f"{export.name} holds no record")
    if not lost.known and not accept_unrelated:
        raise click.ClickException(
            f"{export.name} and the audit trail have no record in common: it is from another "
            "installation, or begins after the backup (export with an earlier --since, or give "
            "--accept-unrelated)"
        )
    if not lost.lost:
        raise click.ClickException(
            f"the audit trail has all {lost.records} records of {export.name}: it shows nothing "
            "that came after the backup; export later records, or see `broker audit doubtful`"
        )
    return lost


def _print_lost(lost: LostRevocations) -> None:
    assert lost.first_lost_at is not None  # noqa: S101  (a record was lost)
    assert lost.last_lost_at is not None  # noqa: S101
    click.echo(
        f"the audit trail lacks {lost.lost} of {lost.records} records, from "
        f"{rfc3339(lost.first_lost_at)} to {rfc3339(lost.last_lost_at)}"
    )


def _replayer(database: Database, secret_keys: Sequence[Secret]) -> Replayer:
    clock, fingerprints = SystemClock(), TokenFingerprints(secret_keys)
    sealer = Sealer(local_sealing_keys(secret_keys))
    return Replayer(
        database=database,
        grants=GrantStore(
            database, sealer, clock, keep_access_tokens=False, fingerprints=fingerprints
        ),
        account_grants=AccountGrants(fingerprints, clock),
        audit=AuditTrail(database, clock, Metrics(), audit_keys(secret_keys)),
    )


async def _replay_all(
    replayer: Replayer, revocations: Sequence[LostRevocation], *, is_dry_run: bool
) -> bool:
    """Repeat all revocations; return False if one is left in doubt."""
    done: Counter[ReplayOutcome] = Counter()
    async with progress(lambda: f"{done.total()} of {len(revocations)}"):
        for revocation in revocations:
            outcome = await replayer.replay(revocation, is_dry_run=is_dry_run)
            done[outcome] += 1
            if outcome is not ReplayOutcome.ALREADY:
                click.echo(_outcome_line(revocation, outcome, is_dry_run=is_dry_run))
    counts = [
        f"{done[each]} {_verdict(each, is_dry_run=is_dry_run)}"
        for each in ReplayOutcome
        if done[each]
    ]
    click.echo(", ".join(counts) or "no grant had been revoked")
    return not done[ReplayOutcome.IN_DOUBT]


def _outcome_line(revocation: LostRevocation, outcome: ReplayOutcome, *, is_dry_run: bool) -> str:
    verdict = _verdict(outcome, is_dry_run=is_dry_run)
    if outcome is ReplayOutcome.IN_DOUBT:
        verdict += ": a revocation was requested, and the answer was that it may not be stored"
    account = revocation.account_sub or "all accounts"
    who = f"user {printable(revocation.user_id)}, {printable(account)}"
    return f"{who}: {revocation.kind} {rfc3339(revocation.record.at)}: {verdict}"


def _verdict(outcome: ReplayOutcome, *, is_dry_run: bool) -> str:
    would_be = is_dry_run and outcome is ReplayOutcome.REPEATED
    return f"would be {outcome}" if would_be else str(outcome)


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
    """One line of the table; the columns before the status are as wide as a time."""
    used = rfc3339(row["last_used_at"]) if row["last_used_at"] else "-"
    who = f"{printable(row['user_id'])}  {printable(row['google_sub'])}"
    return f"{rfc3339(row['consented_at']):<20}  {used:<20}  {row['status']}  {who}"
