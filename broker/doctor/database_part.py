"""PostgreSQL: can it be reached, has it this release's schema, do the keys open what is in it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import asyncpg

from broker.clock import Clock
from broker.crypto.sealing import local_sealing_keys
from broker.database.database import Database, StorageUnavailable
from broker.database.queries import load_queries
from broker.database.schema import Applied, SchemaError, applied_migrations, check_schema
from broker.database.timelines import tells_timeline
from broker.doctor.findings import Finding, Report
from broker.secret import Secret

_SQL = load_queries("broker.doctor")
_LIMIT_SECONDS = 2.0

LOOKED_BACK = timedelta(days=7)
"""How far back commits that a failover lost are counted."""


@dataclass(frozen=True, slots=True)
class SealingKeyUse:
    """How much of the table one key sealed."""

    key_id: str
    lasts: bool
    """Refresh tokens do; the rest is gone within the hour."""
    secrets: int


@dataclass(frozen=True, slots=True)
class DatabaseFacts:
    """What PostgreSQL said."""

    applied: Sequence[Applied]
    schema_problem: str | None
    version: str
    is_replica: bool
    ahead: timedelta
    """How far its clock is ahead of ours."""
    sealing_keys: Sequence[SealingKeyUse]
    """Empty where the schema is not this release's."""
    standbys: int
    is_synchronous: bool
    """Whether a commit waits for a standby."""
    tells_timeline: bool
    """Whether a failover to another server can be noticed; a standby's answer says nothing."""
    lost_commits: Mapping[str, int] | None
    """Grants of which a failover lost a commit lately, by kind; None where that took too long."""


async def ask_database(url: Secret, clock: Clock) -> DatabaseFacts:
    """Raises `StorageUnavailable`, or `SchemaError` if this role may not read."""
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
            tells = await tells_timeline(connection)
        lost = {} if problem else await _count_lost_commits(database, server["now"])
    except asyncpg.PostgresError as error:
        raise SchemaError(f"PostgreSQL refuses: {error}") from error
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
        tells_timeline=tells,
        lost_commits=lost,
    )


async def _count_lost_commits(database: Database, now: datetime) -> Mapping[str, int] | None:
    """Goes through all records of the time; there may be too many for one statement."""
    try:
        rows = await database.fetch(_SQL["lost_commits"], now - LOOKED_BACK)
    except StorageUnavailable:
        return None
    return {row["kind"]: row["grants"] for row in rows}


def _schema_problem(applied: Sequence[Applied]) -> str | None:
    try:
        check_schema(applied)
    except SchemaError as error:
        return str(error)
    return None


def unreachable(error: StorageUnavailable | SchemaError) -> list[Finding]:
    """Why nothing could be asked."""
    return Report("database").fail(str(error), _remedy(error.__cause__)).findings


def check_database(facts: DatabaseFacts) -> list[Finding]:
    """Reached; is it writable, and of this release's schema?"""
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
    """Did failovers lose commits, and could the next one?"""
    report = Report("failover")
    if facts.schema_problem is not None:
        return report.skip("the schema is not this release's").findings
    days = LOOKED_BACK.days
    if facts.lost_commits is None:
        report.skip(f"the audit trail of {days} days is too long to be searched in time")
    elif facts.lost_commits:
        lost = ", ".join(f"{count} {kind}" for kind, count in facts.lost_commits.items())
        report.warn(
            f"failovers lost commits in the last {days} days: {lost}",
            "`broker audit show --action commit_lost` names whom they concern; docs/operations.md "
            "says what to do about each",
        )
    if facts.standbys and not facts.is_synchronous:
        report.warn(
            "it has standbys and waits for none: a failover loses the newest commits",
            "set synchronous_standby_names (Patroni: synchronous_mode), or accept that consents "
            "and revocations may be lost",
        )
    if not facts.tells_timeline and not facts.is_replica:
        report.warn(
            "it does not tell its timeline: a failover that loses commits can't be noticed",
            "nothing, on Amazon Aurora: its failovers lose none",
        )
    if not report.findings:
        report.ok(f"no commit was found lost in {days} days")
    return report.findings


def check_sealing_keys(facts: DatabaseFacts, secret_keys: Sequence[Secret]) -> list[Finding]:
    """Is every key that sealed something among those configured?"""
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
            "nothing is lost, each is fetched anew; to avoid it, append the former key to "
            "SECRET_KEY, after a comma",
        )
    if not report.findings:
        older = _count(use for use in facts.sealing_keys if use.key_id != keys[0])
        total = _count(facts.sealing_keys)
        still = f", {older} of them with a former one that must stay" if older else ""
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
        "see that PostgreSQL runs, that DATABASE_URL has its host and port, and that no firewall "
        "is in between"
    )
