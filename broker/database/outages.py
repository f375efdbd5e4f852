"""What the driver's errors mean to callers: the one place where PostgreSQL's troubles get a name.

Callers see `StorageUnavailable` when waiting may help, and asyncpg's own errors when the query or
the data is at fault.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg

AWAY = (
    OSError,
    TimeoutError,
    # What asyncpg says when a connection that was just terminated is used.
    asyncpg.InternalClientError,
    # 55000, when a database does not accept connections.
    asyncpg.exceptions.ObjectNotInPrerequisiteStateError,
    asyncpg.PostgresConnectionError,
    asyncpg.exceptions.OperatorInterventionError,
    asyncpg.exceptions.InsufficientResourcesError,
    asyncpg.exceptions.ReadOnlySQLTransactionError,
    asyncpg.exceptions.InvalidAuthorizationSpecificationError,
    asyncpg.exceptions.InvalidCatalogNameError,
    # Who administers it has not let us in, or not everywhere.
    asyncpg.exceptions.InsufficientPrivilegeError,
    asyncpg.exceptions.PostgresSystemError,
    asyncpg.exceptions.IdleInTransactionSessionTimeoutError,
    asyncpg.exceptions.TransactionTimeoutError,
)

CONTENDED = (
    # 55P03, by `lock_timeout`. To be looked for before `AWAY`, which has its parent.
    asyncpg.exceptions.LockNotAvailableError,
    # Deadlocks and serialization failures: whoever is chosen to give way may try again.
    asyncpg.exceptions.TransactionRollbackError,
)
"""PostgreSQL answers, and says that somebody else was first."""


POOLED = (
    # What was prepared on one server's connection is asked of another's, or of another client's.
    asyncpg.exceptions.InvalidSQLStatementNameError,
    asyncpg.exceptions.DuplicatePreparedStatementError,
)


UNFINISHED = (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""What the use of a connection may end with while a query is still under way on it."""


class StorageUnavailable(Exception):  # noqa: N818  (the contract's own word)
    """PostgreSQL can't be used just now. The message names the failure, never the address."""

    headline = "storage is away"
    """For the log."""


class StorageBusy(StorageUnavailable):
    """All our connections are in use: too much is asked at once, and nothing is known to be away.

    So it is no reason to do without PostgreSQL what takes turns among replicas.
    """

    headline = "all connections to storage are in use"


class StorageContended(StorageBusy):
    """Somebody else holds a row or a lock that is needed, or was first: PostgreSQL is there."""

    headline = "somebody else holds a lock in storage"


def outage_in(
    error: BaseException, connection: asyncpg.Connection | None
) -> StorageUnavailable | None:
    """What an error means to callers, if it is not their own."""
    if isinstance(error, CONTENDED):
        return StorageContended(type(error).__name__)
    if isinstance(error, AWAY):
        return StorageUnavailable(type(error).__name__)
    if isinstance(error, asyncpg.InterfaceError) and connection is not None and is_gone(connection):
        return StorageUnavailable(type(error).__name__)
    return None


def has_finished(error: BaseException) -> bool:
    """Whether no query is under way any more on the connection whose use this error ended."""
    return isinstance(error, Exception) and not isinstance(error, UNFINISHED)


@contextmanager
def naming_outages() -> Iterator[None]:
    """Raises `StorageUnavailable` for what is one."""
    try:
        yield
    except (*CONTENDED, *AWAY) as error:
        outage = outage_in(error, None)
        assert outage is not None  # noqa: S101  (both kinds are)
        raise outage from error


def is_gone(connection: asyncpg.Connection) -> bool:
    """Whether a connection was lost."""
    return bool(connection.is_closed())


def describe_address_fault(error: Exception) -> str:
    """What the driver finds wrong with the address, without any of it that could be a password."""
    if isinstance(error, asyncpg.exceptions.ClientConfigurationError):
        return f"DATABASE_URL: {error.args[0]}"
    return "DATABASE_URL can't be read as an address"
