"""What an audit record is made of, and the one line of bytes that each of them is.

What is written and what is verified are lines of the same function: of the same record it always
makes the same bytes.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import NewType, Protocol

from broker.database.copy_text import array_field, text_field

COLUMNS = (
    "at", "action", "outcome", "caller", "user_id", "account_sub", "scopes", "request_id", "batch",
)  # fmt: skip

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Outcome = NewType("Outcome", bytes)
"""What happened, and to which caller: the columns from `action` to `caller`."""

Told = bytes
"""Whose token it was about, and what that carries: the columns from `user_id` to `scopes`."""


class Telling(Protocol):
    """What a record is about, where it is dearer to keep what is written of it than to make it."""

    def told(self) -> Told:
        """The same whenever it is asked for."""
        ...


def told_outcome(action: str, outcome: str, caller: str | None = None) -> Outcome:
    """The first half of a record; what happens often keeps its own."""
    return Outcome(b"\t".join(map(text_field, (action, outcome, caller))))


def told_count(of: Outcome, prefix: str) -> Outcome:
    """The first half of the record that stands for many such: the outcome begins with `prefix`."""
    action, outcome, caller = of.split(b"\t")
    return Outcome(b"\t".join((action, text_field(prefix) + outcome, caller)))


def told_user(user_id: str | None, account_sub: str | None, scopes: Iterable[str]) -> Told:
    """The second half."""
    return b"\t".join((text_field(user_id), text_field(account_sub), array_field(scopes)))


Record = tuple[float, Outcome, bytes, Telling | Told]
"""One event: when (seconds since 1970), what, by which request, and about whom."""


class LineWriter:
    """One batch's records as COPY's lines."""

    def __init__(self, batch: int) -> None:
        self._end = b"\t%d\n" % batch
        self._second = -1
        self._date_and_time = b""

    def line(self, microseconds: int, outcome: Outcome, request_id: bytes, told: Told) -> bytes:
        """A record that happened so long after 1970."""
        second = microseconds // 1_000_000
        if second != self._second:
            # Making a date is dear, and many share one.
            self._second = second
            moment = _EPOCH + timedelta(seconds=second)
            self._date_and_time = moment.strftime("%Y-%m-%d %H:%M:%S").encode()
        return b"%b.%06d+00\t%b\t%b\t%b%b" % (
            self._date_and_time, microseconds % 1_000_000, outcome, told, request_id, self._end,
        )  # fmt: skip
