"""Audit records, and the one line of bytes that each of them is.

Writing and verification use the same encoder: the same record always gives the same bytes.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import NewType, Protocol

import asyncpg

from broker.database.copy_text import array_field, text_field

COLUMNS = (
    "at", "action", "outcome", "caller", "user_id", "account_sub", "scopes", "request_id", "batch",
)  # fmt: skip

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

OutcomeFields = NewType("OutcomeFields", bytes)
"""The columns `action`, `outcome` and `caller`, encoded."""

SubjectFields = bytes
"""The columns `user_id`, `account_sub` and `scopes`, encoded."""


class RecordSubject(Protocol):
    """A record's subject that encodes its columns only when they are written, to save memory."""

    def subject_fields(self) -> SubjectFields:
        """Return the same bytes on every call."""
        ...


AuditRecord = tuple[float, OutcomeFields, bytes, RecordSubject | SubjectFields]
"""One event: seconds since 1970, what happened, the encoded request id, and the subject."""


def outcome_fields(action: str, outcome: str, caller: str | None = None) -> OutcomeFields:
    """Encode the first half of a record. Frequent events keep the result."""
    return OutcomeFields(b"\t".join(map(text_field, (action, outcome, caller))))


def prefixed_outcome(fields: OutcomeFields, prefix: str) -> OutcomeFields:
    """Return the fields of a summary record: the same, with `prefix` before the outcome."""
    action, outcome, caller = fields.split(b"\t")
    return OutcomeFields(b"\t".join((action, text_field(prefix) + outcome, caller)))


def subject_fields(
    user_id: str | None, account_sub: str | None, scopes: Iterable[str]
) -> SubjectFields:
    """Encode the second half of a record."""
    return b"\t".join((text_field(user_id), text_field(account_sub), array_field(scopes)))


def microseconds_of(at: datetime) -> int:
    """Return the microseconds since 1970, exactly."""
    return (at - _EPOCH) // _MICROSECOND


def time_of(microseconds: int) -> datetime:
    """Return the time that is this many microseconds after 1970, exactly."""
    return _EPOCH + timedelta(microseconds=microseconds)


class RecordEncoder:
    """Encodes the records of one batch as lines of COPY's text format."""

    def __init__(self, batch_id: int) -> None:
        self._end = b"\t%d\n" % batch_id
        self._second = -1
        self._date_and_time = b""

    def line(
        self, microseconds: int, outcome: OutcomeFields, request_id: bytes, subject: SubjectFields
    ) -> bytes:
        """Encode a record that happened this many microseconds after 1970."""
        second = microseconds // 1_000_000
        if second != self._second:
            # Formatting a date is slow, and many records share one.
            self._second = second
            moment = _EPOCH + timedelta(seconds=second)
            self._date_and_time = moment.strftime("%Y-%m-%d %H:%M:%S").encode()
        return b"%b.%06d+00\t%b\t%b\t%b%b" % (
            self._date_and_time, microseconds % 1_000_000, outcome, subject, request_id, self._end,
        )  # fmt: skip

    def line_of_row(self, row: asyncpg.Record) -> bytes:
        """Encode a record read from `audit_events`."""
        scopes = row["scopes"]
        subject = b""
        if scopes is None or (scopes and all(isinstance(scope, str) for scope in scopes)):
            subject = subject_fields(row["user_id"], row["account_sub"], scopes or ())
        # Else it is an array that no broker writes: empty, nested, or with a NULL in it.
        outcome = outcome_fields(row["action"], row["outcome"], row["caller"])
        request_id = text_field(row["request_id"])
        return self.line(microseconds_of(row["at"]), outcome, request_id, subject)
