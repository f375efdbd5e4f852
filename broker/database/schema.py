"""Applies and reverts migrations, and checks that this release can work with the schema."""

import os
import re
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import resources

import asyncpg

from broker.database.database import StorageUnavailable, describe_address_fault, is_gone
from broker.database.driver import connect, is_behind_pooler
from broker.database.lock_waits import GIVE_UP_SECONDS, LocksHeldError, LockWaits
from broker.database.timeouts import Timeouts
from broker.secret import Secret

_FILE = re.compile(r"(?P<number>\d{4})_(?P<name>[a-z0-9_]+)\.sql")
_SECTIONS = re.compile(
    r"-- oldest-release: (?P<oldest>\d+)\n(?P<about>.*?)"
    r"^-- migrate:up\n(?P<up>.*)^-- migrate:down\n(?P<down>.*)",
    re.DOTALL | re.MULTILINE,
)
_LOCK = 7_305_417_119
"""The advisory lock that serialises concurrent `broker migrate` runs."""

_COMMAND_SECONDS = 5.0
"""For queries; a migration may take longer."""

_CANNOT_CONNECT = (
    OSError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    # The driver raises these for an address that it can't parse.
    ValueError,
    OverflowError,
)

_HISTORY_TABLE = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    number integer PRIMARY KEY,
    name text NOT NULL,
    oldest_release integer NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)
"""


class SchemaError(Exception):
    """This release can't work with the schema; the message says what to do."""


@dataclass(frozen=True)
class Migration:
    """One numbered migration. `oldest_release` is the oldest schema number whose release may still
    run.
    """

    number: int
    name: str
    oldest_release: int
    up: str
    down: str


@dataclass(frozen=True)
class AppliedMigration:
    """A row of the table `schema_migrations`."""

    number: int
    name: str
    oldest_release: int


def known_migrations() -> Sequence[Migration]:
    """Return all migrations of this release, in order. Raises `ValueError` on a gap or bad file."""
    migrations = sorted(_read_files(), key=lambda migration: migration.number)
    for expected, migration in enumerate(migrations, start=1):
        if migration.number != expected:
            raise ValueError(f"migration {expected:04} is missing")
    return migrations


def _read_files() -> Iterator[Migration]:
    for entry in resources.files("broker.database.migrations").iterdir():
        match = _FILE.fullmatch(entry.name)
        if match is None:
            continue
        sections = _SECTIONS.search(entry.read_text(encoding="utf-8"))
        if sections is None:
            raise ValueError(f"{entry.name}: needs oldest-release, migrate:up and migrate:down")
        yield Migration(
            number=int(match["number"]),
            name=match["name"],
            oldest_release=int(sections["oldest"]),
            up=sections["up"],
            down=sections["down"],
        )


@asynccontextmanager
async def _connected(
    url: Secret, *, command_seconds: float | None = _COMMAND_SECONDS
) -> AsyncIterator[asyncpg.Connection]:
    try:
        # Behind a pooler, a prepared statement's name may be another client's.
        connection = await connect(
            url.reveal(), timeout=5, command_timeout=command_seconds, statement_cache_size=0
        )
    except _CANNOT_CONNECT as error:
        raise StorageUnavailable(_reason(error)) from error
    try:
        if not await is_behind_pooler(connection):
            await Timeouts(_COMMAND_SECONDS).set_for_session(connection)
        yield connection
    except TimeoutError as error:
        raise StorageUnavailable(_reason(error)) from error
    except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        if is_gone(connection):
            raise StorageUnavailable("the connection was lost midway") from error
        if isinstance(error, asyncpg.InterfaceError):
            raise
        raise SchemaError(f"PostgreSQL refused the query: {error}") from error
    finally:
        await _close(connection)


async def _close(connection: asyncpg.Connection) -> None:
    try:
        await connection.close(timeout=1)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        connection.terminate()


def _reason(error: Exception) -> str:
    """Describe the error without the address, which may contain a password."""
    if isinstance(error, asyncpg.PostgresError):
        return str(error)
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, socket.gaierror):
        return error.strerror or "no such host"
    if isinstance(error, OSError):
        # Its own message contains the address.
        return os.strerror(error.errno) if error.errno else type(error).__name__
    return describe_address_fault(error)


async def applied_migrations(url: Secret) -> list[AppliedMigration]:
    """Return the applied migrations, the oldest first; empty for a new database.

    Raises `StorageUnavailable`, and `SchemaError` if this role may not read them.
    """
    async with _connected(url) as connection:
        return await _applied(connection)


async def _applied(connection: asyncpg.Connection) -> list[AppliedMigration]:
    if await connection.fetchval("SELECT to_regclass('schema_migrations')") is None:
        return []
    rows = await connection.fetch(
        "SELECT number, name, oldest_release FROM schema_migrations ORDER BY number"
    )
    return [AppliedMigration(row["number"], row["name"], row["oldest_release"]) for row in rows]


def check_schema(applied: Sequence[AppliedMigration]) -> None:
    """Raise `SchemaError` unless this release can work with the schema as it is."""
    known = known_migrations()
    if not applied:
        raise SchemaError("the database has no schema yet; run `broker migrate`")
    newest_known, newest_applied = known[-1].number, applied[-1].number
    if newest_applied < newest_known:
        raise SchemaError(
            f"the schema is at {newest_applied:04}, this release needs {newest_known:04}; "
            "run `broker migrate`"
        )
    for here, there in zip(known, applied, strict=False):
        if (here.number, here.name) != (there.number, there.name):
            raise SchemaError(
                f"migration {there.number:04} is {there.name!r} in the database and {here.name!r} "
                "in this release; this database belongs to another program or branch"
            )
    if max(step.oldest_release for step in applied) > newest_known:
        raise SchemaError(
            f"the schema is at {newest_applied:04}, which this release does not know "
            f"(it knows up to {newest_known:04}); run the newer release"
        )


async def migrate(
    url: Secret,
    *,
    to: int | None = None,
    report: Callable[[str], None] = lambda _line: None,
    give_up_seconds: float = GIVE_UP_SECONDS,
) -> list[str]:
    """Migrate to schema number `to` (default: the newest), and return a line per migration.

    Each migration is one transaction, which waits briefly for its locks and is retried for
    `give_up_seconds`; `report` gets a line for each wait. Reverting loses what later migrations
    added. A newer schema that this release can work with is left unchanged. Raises `SchemaError`
    for a number or schema that this release does not know, and `StorageUnavailable`.
    """
    known = known_migrations()
    target = known[-1].number if to is None else to
    if not 0 <= target <= known[-1].number:
        raise SchemaError(
            f"there is no migration {target:04}; this release has up to {known[-1].number:04}"
        )
    async with _connected(url, command_seconds=None) as connection, _connected(url) as observer:
        waits = LockWaits(connection, observer, report=report, give_up_seconds=give_up_seconds)
        try:
            return await _migrate(connection, waits, known, target, is_newest=to is None)
        except LocksHeldError as error:
            raise SchemaError(
                f"gave up after {give_up_seconds:.0f} s of waiting for {error}; end that process, "
                "then run `broker migrate` again"
            ) from error


async def _migrate(
    connection: asyncpg.Connection,
    waits: LockWaits,
    known: Sequence[Migration],
    target: int,
    *,
    is_newest: bool,
) -> list[str]:
    # A session lock: concurrent migrations wait until all of these are done.
    await waits.run(lambda: connection.execute(f"SELECT pg_advisory_lock({_LOCK})"))
    await waits.run(lambda: connection.execute(_HISTORY_TABLE))
    applied = await _applied(connection)
    _check_no_gaps(applied)
    if is_newest and len(applied) > len(known):
        # The release was rolled back: accept what `broker serve` accepts.
        check_schema(applied)
        return []
    _check_all_known(applied, known)
    steps = [_applying(m) for m in known if len(applied) < m.number <= target]
    steps += [_reverting(m) for m in reversed(known) if target < m.number <= len(applied)]
    for step in steps:
        await waits.run(lambda step=step: connection.execute(step.sql))  # type: ignore[misc]
    return [step.message for step in steps]


def _check_no_gaps(applied: Sequence[AppliedMigration]) -> None:
    for expected, step in enumerate(applied, start=1):
        if step.number != expected:
            raise SchemaError(
                f"migration {expected:04} is missing in the database, but later ones are applied; "
                "it was changed by hand, restore it from a backup"
            )


def _check_all_known(applied: Sequence[AppliedMigration], known: Sequence[Migration]) -> None:
    names = {migration.number: migration.name for migration in known}
    for step in applied:
        if names.get(step.number) != step.name:
            raise SchemaError(
                f"the database has migration {step.number:04} {step.name!r}, which this release "
                "does not know; use the release that applied it"
            )


@dataclass(frozen=True, slots=True)
class _Step:
    """The SQL of one migration, in one message, so that a lost client leaves no locks behind."""

    sql: str
    message: str


def _applying(step: Migration) -> _Step:
    recorded = (
        "INSERT INTO schema_migrations (number, name, oldest_release) "  # noqa: S608  (our own file)
        f"VALUES ({step.number}, '{step.name}', {step.oldest_release})"
    )
    return _Step(f"{step.up}\n; {recorded}", f"applied {step.number:04} {step.name}")


def _reverting(step: Migration) -> _Step:
    recorded = f"DELETE FROM schema_migrations WHERE number = {step.number}"  # noqa: S608  (a number)
    return _Step(f"{step.down}\n; {recorded}", f"reverted {step.number:04} {step.name}")
