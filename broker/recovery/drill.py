"""What a restored database must be good for: this release's schema, rows that open, an audit trail
that is whole, and a token that is served from it. Never calls Google.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

import asyncpg

from broker.audit.keys import audit_keys
from broker.audit.verification import Verification
from broker.database.database import Database
from broker.database.driver import connect
from broker.database.outages import StorageUnavailable, describe_address_fault
from broker.database.queries import load_queries
from broker.database.schema import applied_migrations, migrate
from broker.recovery.opening import open_one_of_each_key
from broker.recovery.served_token import serve_a_token
from broker.secret import Secret

_SQL = load_queries("broker.recovery")
_QUERY_SECONDS = 3600.0

Tell = Callable[[str], None]


class DrillError(Exception):
    """The restored database is not good enough; the message is one line and says why."""


@dataclass(frozen=True, slots=True)
class Drilled:
    """What a drill that went well has shown."""

    newest_commit: datetime


async def refuse_live(url: Secret) -> None:
    """Raises `DrillError` if this is no scratch database with a restored backup in it, and
    `StorageUnavailable`. A drill migrates and writes: a live one must not see it.
    """
    try:
        connection = await connect(url.reveal(), timeout=5, statement_cache_size=0)
    except (OSError, TimeoutError, asyncpg.PostgresError) as error:
        raise StorageUnavailable(str(error) or "no answer in time") from error
    except (asyncpg.InterfaceError, ValueError) as error:
        raise StorageUnavailable(describe_address_fault(error)) from error
    try:
        signs = await connection.fetchrow(_SQL["signs_of_life"])
    finally:
        await connection.close(timeout=5)
    assert signs is not None  # noqa: S101  (a query without FROM has one row)
    if signs["brokers"]:
        raise DrillError(f"the database is live: {signs['brokers']} sessions of brokers are open")
    if signs["standbys"]:
        raise DrillError(f"the database is live: {signs['standbys']} standbys follow it")
    if signs["is_standby"]:
        raise DrillError("the database is a standby; promote what you restored")


async def check_restored(url: Secret, keys: Sequence[Secret], tell: Tell) -> Drilled:
    """Raises `DrillError`, `SchemaError` and `StorageUnavailable`; tells each step that is done."""
    before = await applied_migrations(url)
    if not before:
        raise DrillError("no broker's schema is in this database: was anything restored into it?")
    steps = await migrate(url)
    tell(f"migrated from {before[-1].number:04}: {len(steps)} steps")
    database = Database(url, max_connections=2, command_seconds=_QUERY_SECONDS)
    await database.open()
    try:
        newest = await database.fetchval(_SQL["newest_commit"])
        if newest is None:
            raise DrillError("the backup holds no grant and no audit record: is it the right one?")
        await _open_rows(database, keys, tell)
        await _verify_trail(database, keys, tell)
        row = await database.fetchrow(_SQL["newest_active_grant"])
        if row is None:
            raise DrillError("the backup holds no active grant, so no token can be served")
    finally:
        await database.close()
    problem = await serve_a_token(url, keys, row)
    if problem is not None:
        raise DrillError(f"no token was served: {problem}")
    tell("a token was served")
    return Drilled(newest)


async def _open_rows(database: Database, keys: Sequence[Secret], tell: Tell) -> None:
    openings = await open_one_of_each_key(database, keys)
    for opening in openings:
        if opening.problem and opening.lasts:
            raise DrillError(f"SECRET_KEY does not open the backup: {opening}")
        tell(str(opening))


async def _verify_trail(database: Database, keys: Sequence[Secret], tell: Tell) -> None:
    verification = Verification(audit_keys(keys))
    async with database.connection() as connection:
        faults = [str(fault) async for fault in verification.faults(connection)]
    if faults:
        raise DrillError(f"the audit trail is not whole: {faults[0]} ({len(faults)} faults)")
    tally = verification.tally
    tell(f"the audit trail is whole: {tally.records} records, head {tally.head}")
