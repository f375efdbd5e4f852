"""Records of the audit trail as operators ask for them, and how they are shown.

The names of the fields are for other programs to rely on. No text of a caller's reaches a terminal
with a control character in it.
"""

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import asyncpg

from broker.audit.batch_macs import Head
from broker.database.database import Connection
from broker.database.queries import load_queries

_ROWS_FETCHED = 2_000
_SQL = load_queries("broker.audit")


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which records; None is any."""

    user: str | None = None
    caller: str | None = None
    account: str | None = None
    action: str | None = None
    outcome: str | None = None
    """Whole, or the part before its colon."""
    since: datetime | None = None
    until: datetime | None = None

    @property
    def arguments(self) -> Sequence[object]:
        """As the queries take them."""
        who = (self.user, self.caller, self.account)
        return (*who, self.action, self.outcome, self.since, self.until)


async def latest_records(
    connection: Connection, wanted: Filter, limit: int
) -> Sequence[asyncpg.Record]:
    """The last so many, newest last."""
    rows = await connection.fetch(_SQL["latest"], *wanted.arguments, limit)
    return rows[::-1]


async def newest_head(connection: Connection) -> Head | None:
    """Where the chain of seals ends now; None before the first. Nothing is verified."""
    row = await connection.fetchrow(_SQL["newest_head"])
    return Head(row["number"], row["mac"]) if row is not None else None


async def all_records(connection: Connection, wanted: Filter) -> AsyncIterator[asyncpg.Record]:
    """Every one, in the order in which they were written, a bounded number at a time in memory."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        rows = connection.cursor(_SQL["all"], *wanted.arguments, prefetch=_ROWS_FETCHED)
        async for row in rows:
            yield row


def as_json(row: asyncpg.Record) -> str:
    """One line, of ASCII only."""
    return json.dumps(
        {
            "id": row["id"],
            "at": _moment(row["at"], "microseconds"),
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


def as_table(rows: Sequence[asyncpg.Record]) -> list[str]:
    """A heading and a line for each record; none for no records."""
    if not rows:
        return []
    heading = ("AT", "ACTION", "OUTCOME", "CALLER", "USER", "ACCOUNT", "REQUEST", "SEAL", "SCOPES")
    table = [heading, *map(_cells, rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
        for cells in table
    ]


def as_blocks(rows: Sequence[asyncpg.Record]) -> list[str]:
    """Two or three lines for each record, for where a line of the table would not fit."""
    return [line for row in rows for line in _block(row)]


def _block(row: asyncpg.Record) -> list[str]:
    at, action, outcome, caller, user, account, request, seal, scopes = _cells(row)
    who = (("caller", caller), ("user", user), ("account", account), ("request", request))
    named = [f"{name} {value}" for name, value in who if value != "-"]
    sealed = seal if seal == "unsealed" else f"seal {seal}"
    lines = [f"{at}  {action}  {outcome}", "    " + ", ".join([*named, sealed])]
    return [*lines, f"    {scopes}"] if scopes != "-" else lines


def _cells(row: asyncpg.Record) -> tuple[str, ...]:
    names = ("action", "outcome", "caller", "user_id", "account_sub", "request_id")
    return (
        _moment(row["at"], "milliseconds"),
        *(printable(row[name]) for name in names),
        str(row["seal"] or "unsealed"),
        " ".join(map(printable, row["scopes"] or ())) or "-",
    )


def _moment(at: datetime, precision: str) -> str:
    return at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec=precision) + "Z"


def printable(value: Any) -> str:
    """A text as a terminal may show it: nothing in it moves the cursor or turns the writing."""
    if value is None:
        return "-"
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(value))
