"""PostgreSQL: reachable, writable, of this release's schema, and sealed with configured keys."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import asyncpg

from broker.clock import Clock
from broker.crypto.sealing import local_sealing_keys
from broker.database.database import Database, StorageUnavailable
from broker.database.driver import reports_timeline
from broker.database.queries import load_queries
from broker.database.schema import AppliedMigration, SchemaError, applied_migrations, check_schema
from broker.doctor.findings import Finding, Report
from broker.secret import Secret

_SQL = load_queries("broker.doctor")
_LIMIT_SECONDS = 2.0

LOST_COMMITS_WINDOW = timedelta(days=7)
"""How far back lost commits are counted."""


@dataclass(frozen=True, slots=True)
class SealingKeyUse:
    """The number of stored secrets that one key sealed."""

    key_id: str
    lasts: bool
    """True for refresh tokens; the others expire within an hour."""
    secrets: int


@dataclass(frozen=True, slots=True)
class DatabaseFacts:
    """The answers of PostgreSQL."""

    applied: Sequence[AppliedMigration]
    schema_problem: str | None
    version: str
    is_replica: bool
    ahead: timedelta
    """How far its clock is ahead of ours."""
    sealing_keys: Sequence[SealingKeyUse]
    """Empty if the schema is not this release's."""
    standbys: int
    is_synchronous: bool
    """True if a commit waits for a standby."""
    reports_timeline: bool
    """True if replicas can notice a failover to another server; always False for a standby."""
    lost_commits: Mapping[str, int] | None
    """The number of grants with a lost commit, by kind; None if the query took too long."""


async def fetch_database_facts(url: Secret, clock: Clock) -> DatabaseFacts:
    """Query the database. Raises `StorageUnavailable`, or `SchemaError` if the role may not."""
    applied = await applied_migrations(url)
    database = Database(
        url, max_connections=1, connect_seconds=_LIMIT_SECONDS, command_seconds=_LIMIT_SECONDS
    )
    await database.open()
    try:
        server = await database.fetchrow(_SQL["server"])
        assert server is not None  # noqa: S101  (a query without FROM has one row)
        ahead = server["now"] - clock.now()
        problem = _schema_problem(applied)
        rows = [] if problem else await database.fetch(_SQL["sealing_keys_in_use"])
        async with database.connection() as connection:
            reports = await reports_timeline(connection)
        lost = {} if problem else await _count_lost_commits(database, server["now"])
    except asyncpg.PostgresError as error:
        raise SchemaError(f"PostgreSQL refused the query: {error}") from error
    finally:
        await database.close()
    return DatabaseFacts(
        applied=applied,
        schema_problem=problem,
        version=server["version"],
        is_replica=server["is_replica"],
        ahead=ahead,
        sealing_keys=[SealingKeyUse(r["key_id"], r["lasts"], r["secrets"]) for r in rows],
        standbys=server["standbys"],
        is_synchronous=server["is_synchronous"],
        reports_timeline=reports,
        lost_commits=lost,
    )


async def _count_lost_commits(database: Database, now: datetime) -> Mapping[str, int] | None:
    """Return the grants with a lost commit, by kind; None if there are too many records."""
    try:
        rows = await database.fetch(_SQL["lost_commits"], now - LOST_COMMITS_WINDOW)
    except StorageUnavailable:
        return None
    return {row["kind"]: row["grants"] for row in rows}


def _schema_problem(applied: Sequence[AppliedMigration]) -> str | None:
    try:
        check_schema(applied)
    except SchemaError as error:
        return str(error)
    return None


def report_unavailable(error: StorageUnavailable | SchemaError) -> list[Finding]:
    """Report why the database could not be queried."""
    return Report("database").fail(str(error), _remedy(error.__cause__)).findings


def check_database(facts: DatabaseFacts) -> list[Finding]:
    """Check that it is writable and has this release's schema."""
    report = Report("database")
    if facts.is_replica:
        report.fail(
            "it is a replica, which can't be written to", "let DATABASE_URL name the primary"
        )
    if facts.schema_problem is not None:
        what, _, remedy = facts.schema_problem.partition("; ")
        report.fail(what, remedy or "run `broker migrate`")
    if not report.findings:
        report.ok(f"PostgreSQL {facts.version}, schema {facts.applied[-1].number:04}")
    return report.findings


def check_failovers(facts: DatabaseFacts) -> list[Finding]:
    """Check that failovers lost no commits, and that the next one will not."""
    report = Report("failover")
    if facts.schema_problem is not None:
        return report.skip("the schema is not this release's").findings
    days = LOST_COMMITS_WINDOW.days
    if facts.lost_commits is None:
        report.skip(
            f"the audit trail of the last {days} days could not be searched within the time limit"
        )
    elif facts.lost_commits:
        lost = ", ".join(f"{count} {kind}" for kind, count in facts.lost_commits.items())
        report.warn(
            f"failovers lost commits in the last {days} days: {lost}",
            "`broker audit show --action commit_lost` lists the users; "
            "docs/how-to/handle-a-failover.md says what to do about each kind",
        )
    if facts.standbys and not facts.is_synchronous:
        report.warn(
            "PostgreSQL has only asynchronous standbys: a failover can lose the newest commits",
            "set synchronous_standby_names (Patroni: synchronous_mode), or accept that consents "
            "and revocations may be lost",
        )
    if not facts.reports_timeline and not facts.is_replica:
        report.warn(
            "PostgreSQL does not report its timeline: a failover that loses commits goes unnoticed",
            "on Amazon Aurora, do nothing: its failovers lose no commit; otherwise use a "
            "synchronous standby",
        )
    if not report.findings:
        report.ok(f"no lost commits in {days} days")
    return report.findings


def check_sealing_keys(facts: DatabaseFacts, secret_keys: Sequence[Secret]) -> list[Finding]:
    """Check that every key that sealed a stored secret is configured."""
    report = Report("sealing keys")
    if facts.schema_problem is not None:
        return report.skip("the schema is not this release's").findings
    keys = [key.id for key in local_sealing_keys(secret_keys)]
    unknown = [use for use in facts.sealing_keys if use.key_id not in keys]
    lost = _count(use for use in unknown if use.lasts)
    short_lived = _count(use for use in unknown if not use.lasts)
    names = ", ".join(sorted({use.key_id for use in unknown}))
    if lost:
        report.fail(
            f"SECRET_KEY does not open {lost} of the stored refresh tokens (sealed with {names})",
            "append the former key to SECRET_KEY, after a comma; without it these users must "
            "consent again",
        )
    elif short_lived:
        report.warn(
            f"SECRET_KEY does not open {short_lived} short-lived secrets (sealed with {names})",
            "nothing is lost: the broker fetches each again. To avoid that, append the former key "
            "to SECRET_KEY, after a comma",
        )
    if not report.findings:
        older = _count(use for use in facts.sealing_keys if use.key_id != keys[0])
        total = _count(facts.sealing_keys)
        still = f", {older} of them with a former key that must stay" if older else ""
        report.ok(f"SECRET_KEY opens all {total} stored secrets{still}")
    return report.findings


def _count(uses: Iterable[SealingKeyUse]) -> int:
    return sum(use.secrets for use in uses)


def _remedy(cause: BaseException | None) -> str:
    match cause:
        case asyncpg.InvalidAuthorizationSpecificationError():
            return "correct the user or the password in DATABASE_URL"
        case asyncpg.InvalidCatalogNameError():
            return "create the database, or correct its name in DATABASE_URL"
        case asyncpg.InsufficientPrivilegeError():
            return "let the role of DATABASE_URL own the schema, or grant it what it lacks"
        case ValueError() | asyncpg.InterfaceError():
            return "write DATABASE_URL as postgresql://user:password@host:5432/database"
    return (
        "check that PostgreSQL runs, that DATABASE_URL has its host and port, and that no firewall "
        "blocks the connection"
    )
