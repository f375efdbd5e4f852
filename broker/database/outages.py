"""Maps the driver's errors to outages; the only place that names PostgreSQL's failures.

Callers get `StorageUnavailable` if waiting may help, and asyncpg's own errors if the query or the
data is at fault.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg

UNAVAILABLE = (
    OSError,
    TimeoutError,
    # asyncpg raises it when a connection that was just terminated is used.
    asyncpg.InternalClientError,
    # 55000, when a database does not accept connections.
    asyncpg.exceptions.ObjectNotInPrerequisiteStateError,
    asyncpg.PostgresConnectionError,
    asyncpg.exceptions.OperatorInterventionError,
    asyncpg.exceptions.InsufficientResourcesError,
    asyncpg.exceptions.ReadOnlySQLTransactionError,
    asyncpg.exceptions.InvalidAuthorizationSpecificationError,
    asyncpg.exceptions.InvalidCatalogNameError,
    # The administrator has not granted access, or not to every object.
    asyncpg.exceptions.InsufficientPrivilegeError,
    asyncpg.exceptions.PostgresSystemError,
    asyncpg.exceptions.IdleInTransactionSessionTimeoutError,
    asyncpg.exceptions.TransactionTimeoutError,
)

CONTENDED = (
    # 55P03, by `lock_timeout`. Checked before `UNAVAILABLE`, which has its parent class.
    asyncpg.exceptions.LockNotAvailableError,
    # Deadlocks and serialization failures: the victim may try again.
    asyncpg.exceptions.TransactionRollbackError,
)
"""PostgreSQL responds: another transaction was first."""


POOLED = (
    # A pooler sent the query to another server connection, which has other prepared statements.
    asyncpg.exceptions.InvalidSQLStatementNameError,
    asyncpg.exceptions.DuplicatePreparedStatementError,
)


UNFINISHED = (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""Errors that may end the use of a connection while a query is still under way on it."""


class StorageUnavailable(Exception):  # noqa: N818  (the contract's own word)
    """PostgreSQL can't be used now. The message names the failure, never the address."""

    event = "storage_unavailable"
    headline = "PostgreSQL is unavailable"
    """The log message, and its event id."""


class StorageBusy(StorageUnavailable):
    """All connections of this replica, or of one share, are in use; PostgreSQL may be available.

    So replicas must not skip what they coordinate through PostgreSQL.
    """

    event = "storage_busy"
    headline = "all connections to PostgreSQL are in use"


class StorageContended(StorageBusy):
    """Another transaction holds a required lock, or was first; PostgreSQL is available."""

    event = "storage_contended"
    headline = "another transaction holds a lock in PostgreSQL"


def outage_in(
    error: BaseException, connection: asyncpg.Connection | None
) -> StorageUnavailable | None:
    """Return the outage that an error means, or None if the query or the data is at fault."""
    if isinstance(error, CONTENDED):
        return StorageContended(type(error).__name__)
    if isinstance(error, UNAVAILABLE):
        return StorageUnavailable(type(error).__name__)
    if isinstance(error, asyncpg.InterfaceError) and connection is not None and is_gone(connection):
        return StorageUnavailable(type(error).__name__)
    return None


def has_finished(error: BaseException) -> bool:
    """True if no query is under way on the connection whose use this error ended."""
    return isinstance(error, Exception) and not isinstance(error, UNFINISHED)


@contextmanager
def naming_outages() -> Iterator[None]:
    """Raise `StorageUnavailable` for errors that are outages."""
    try:
        yield
    except (*CONTENDED, *UNAVAILABLE) as error:
        outage = outage_in(error, None)
        assert outage is not None  # noqa: S101  (both kinds are)
        raise outage from error


def is_gone(connection: asyncpg.Connection) -> bool:
    """True if a connection was lost."""
    return bool(connection.is_closed())


def describe_address_fault(error: Exception) -> str:
    """Describe the driver's complaint about the address, without parts that may be a password."""
    if isinstance(error, asyncpg.exceptions.ClientConfigurationError):
        return f"DATABASE_URL: {error.args[0]}"
    return "DATABASE_URL can't be read as an address"
