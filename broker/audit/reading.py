"""Reads audit records for operators, and formats them as JSON lines.

Other programs rely on the names of the JSON fields. A control character in a record never reaches a
terminal.
"""

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import asyncpg

from broker.audit.batch_macs import ChainHead
from broker.database.database import Connection
from broker.database.queries import load_queries

_PREFETCHED_ROWS = 2_000
_SQL = load_queries("broker.audit")


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordFilter:
    """The records to read; None matches any value."""

    user: str | None = None
    caller: str | None = None
    account: str | None = None
    action: str | None = None
    outcome: str | None = None
    """The exact outcome, or its prefix before the colon."""
    since: datetime | None = None
    until: datetime | None = None

    @property
    def arguments(self) -> Sequence[object]:
        """The arguments of the queries, in their order."""
        who = (self.user, self.caller, self.account)
        return (*who, self.action, self.outcome, self.since, self.until)


async def latest_records(
    connection: Connection, wanted: RecordFilter, limit: int
) -> Sequence[asyncpg.Record]:
    """Read the last `limit` records, newest last."""
    rows = await connection.fetch(_SQL["latest_records"], *wanted.arguments, limit)
    return rows[::-1]


async def newest_head(connection: Connection) -> ChainHead | None:
    """Read the head of the chain, unverified; None before the first batch."""
    row = await connection.fetchrow(_SQL["newest_head"])
    return ChainHead(row["number"], row["mac"]) if row is not None else None


async def all_records(
    connection: Connection, wanted: RecordFilter
) -> AsyncIterator[asyncpg.Record]:
    """Yield all records in the order in which they were written, in constant memory."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        rows = connection.cursor(_SQL["all_records"], *wanted.arguments, prefetch=_PREFETCHED_ROWS)
        async for row in rows:
            yield row


def as_json(row: asyncpg.Record) -> str:
    """Format a record as one line of JSON, ASCII only."""
    return json.dumps(
        {
            "id": row["id"],
            "at": timestamp(row["at"], "microseconds"),
            "action": row["action"],
            "outcome": row["outcome"],
            "caller": row["caller"],
            "user_id": row["user_id"],
            "account_sub": row["account_sub"],
            "scopes": row["scopes"] or [],
            "request_id": row["request_id"],
            "seal": row["seal"],
        },
        separators=(",", ":"),
    )


def timestamp(at: datetime, precision: str) -> str:
    """Format a time in UTC; `precision` is a `timespec` of `datetime.isoformat`."""
    return at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec=precision) + "Z"


def printable(value: Any) -> str:
    """Escape a text for a terminal: nothing in it moves the cursor or changes the direction."""
    if value is None:
        return "-"
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(value))
