"""Which errors of the driver are outages, without a database."""

from typing import Any

import asyncpg
import pytest

from broker.database.outages import (
    StorageBusy,
    StorageContended,
    StorageUnavailable,
    describe_address_fault,
    has_finished,
    naming_outages,
    outage_in,
)

_ERRORS = asyncpg.exceptions


class _Connection:
    """A connection of which only the state matters."""

    def __init__(self, *, is_closed: bool) -> None:
        self._is_closed = is_closed

    def is_closed(self) -> bool:
        return self._is_closed


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConnectionRefusedError("10.0.0.1"), StorageUnavailable),
        (TimeoutError(), StorageUnavailable),
        (_ERRORS.TooManyConnectionsError("full"), StorageUnavailable),
        (_ERRORS.QueryCanceledError("cancelled"), StorageUnavailable),
        (_ERRORS.ReadOnlySQLTransactionError("read only"), StorageUnavailable),
        (_ERRORS.InvalidPasswordError("wrong"), StorageUnavailable),
        (_ERRORS.DiskFullError("full"), StorageUnavailable),
        # Its parent class means an outage.
        (_ERRORS.LockNotAvailableError("locked"), StorageContended),
        (_ERRORS.DeadlockDetectedError("deadlock"), StorageContended),
        (_ERRORS.SerializationError("conflict"), StorageContended),
        (_ERRORS.PostgresSyntaxError("syntax"), None),
        (_ERRORS.UniqueViolationError("twice"), None),
        (asyncpg.InterfaceError("misuse"), None),
        (ValueError("defect"), None),
        (KeyboardInterrupt(), None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_an_error_is_an_outage_or_a_defect(
    error: BaseException, expected: type[StorageUnavailable] | None
) -> None:
    outage = outage_in(error, None)
    assert type(outage) is (expected or type(None))
    if outage is not None:
        # The message of the driver may contain the address.
        assert str(outage) == type(error).__name__


@pytest.mark.parametrize(("is_closed", "expected"), [(True, StorageUnavailable), (False, None)])
def test_misuse_of_a_lost_connection_is_an_outage(is_closed: bool, expected: type | None) -> None:
    connection: Any = _Connection(is_closed=is_closed)
    outage = outage_in(asyncpg.InterfaceError("connection is closed"), connection)
    assert type(outage) is (expected or type(None))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (_ERRORS.DivisionByZeroError("1/0"), True),
        (LookupError("of the caller"), True),
        (TimeoutError(), False),
        (ConnectionResetError(), False),
        (asyncpg.InterfaceError("another operation is in progress"), False),
        (KeyboardInterrupt(), False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_a_query_may_be_under_way_after_some_errors(error: BaseException, expected: bool) -> None:
    assert has_finished(error) is expected


def test_only_outages_are_renamed() -> None:
    with pytest.raises(StorageUnavailable, match=r"^ConnectionRefusedError$"), naming_outages():
        raise ConnectionRefusedError
    with pytest.raises(LookupError), naming_outages():
        raise LookupError


@pytest.mark.parametrize(
    ("outage", "event"),
    [
        (StorageUnavailable, "storage_unavailable"),
        (StorageBusy, "storage_busy"),
        (StorageContended, "storage_contended"),
    ],
)
def test_each_outage_has_its_own_event(outage: type[StorageUnavailable], event: str) -> None:
    assert outage.event == event


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            _ERRORS.ClientConfigurationError("`sslmode` parameter must be one of: disable"),
            "DATABASE_URL: `sslmode` parameter must be one of: disable",
        ),
        (ValueError("hunter2@127.0.0.1"), "DATABASE_URL can't be read as an address"),
    ],
)
def test_an_address_fault_is_described_without_the_address(error: Exception, expected: str) -> None:
    assert describe_address_fault(error) == expected
