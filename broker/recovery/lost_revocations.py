"""Revocations that a restored database does not contain: in an audit export, not in the trail.

The export is read line by line, and nothing in it is trusted unchecked.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from itertools import islice
from typing import Any

from broker.database.database import Connection
from broker.database.queries import load_queries
from broker.google.security_events import EventKind

_SQL = load_queries("broker.recovery")
_RECORDS_AT_ONCE = 2_000
_MAX_ID = 2**63 - 1
_TEXT_FIELDS = {"action": False, "outcome": False, "caller": True, "user_id": True,
                "account_sub": True, "request_id": True}  # fmt: skip
"""The text fields; True for those that may be null."""

REPLAYED = "after_restore"
"""The outcome of a repeated revocation's record, which counts itself after another restore."""

_REVOKED_OUTCOMES = frozenset({"ok", "by_user", REPLAYED})


class ExportError(Exception):
    """A line is not a record of `broker audit export`; the message has its number, not its text."""


@dataclass(frozen=True, slots=True)
class ExportedRecord:
    """One record of the audit trail, as it was exported."""

    id: int
    at: datetime
    action: str
    outcome: str
    caller: str | None
    user_id: str | None
    account_sub: str | None
    scopes: tuple[str, ...]
    request_id: str | None

    @property
    def identity(self) -> tuple[object, ...]:
        """Equal to that of the same record in the trail; ids alone repeat after a restore."""
        return (self.id, self.at, self.action, self.outcome, self.user_id, self.account_sub)


class RevocationKind(StrEnum):
    """The ways in which a grant was lost."""

    REVOKED = "revoked"
    ERASED = "erased"
    """A security event erased the tokens: only a new consent makes the grant usable again."""
    SUSPENDED = "suspended"
    """Google disabled the account."""
    IN_DOUBT = "in doubt"
    """A revocation was requested, and the answer was that it may not have been stored."""


@dataclass(frozen=True, slots=True)
class LostRevocation:
    """The loss of a user's grant for one account, or of all of the user's grants."""

    kind: RevocationKind
    record: ExportedRecord
    user_id: str
    account_sub: str | None
    is_hijacking: bool = False


@dataclass(slots=True)
class LostRevocations:
    """Compares an export with the audit trail, and keeps the revocations that the trail lacks."""

    records: int = 0
    known: int = 0
    """Records that the trail has too."""
    first_lost_at: datetime | None = None
    last_lost_at: datetime | None = None
    _revocations: dict[tuple[str, str | None, RevocationKind], LostRevocation] = field(
        default_factory=dict
    )

    @property
    def lost(self) -> int:
        """The number of records that the trail lacks."""
        return self.records - self.known

    @property
    def revocations(self) -> Sequence[LostRevocation]:
        """The last of each kind for each grant, in the order in which they happened."""
        return sorted(self._revocations.values(), key=lambda revocation: revocation.record.at)

    async def read(self, connection: Connection, export: Iterable[ExportedRecord]) -> None:
        """Read the whole export. Raises what `export` raises."""
        for batch in _batches(export):
            rows = await connection.fetch(_SQL["records_by_id"], [each.id for each in batch])
            stored = {tuple(row.values()) for row in rows}
            for record in batch:
                self.records += 1
                if record.identity in stored:
                    self.known += 1
                else:
                    self._add(record)

    def _add(self, record: ExportedRecord) -> None:
        self.first_lost_at = min(self.first_lost_at or record.at, record.at)
        self.last_lost_at = max(self.last_lost_at or record.at, record.at)
        revocation = _revocation(record)
        if revocation is None:
            self._remove_if_enabled_again(record)
            return
        key = (revocation.user_id, revocation.account_sub, revocation.kind)
        before = self._revocations.get(key)
        if before is None or before.record.at <= record.at:
            self._revocations[key] = revocation

    def _remove_if_enabled_again(self, record: ExportedRecord) -> None:
        if record.action == "security_event" and ":brought_back" in record.outcome:
            key = (record.user_id or "", record.account_sub, RevocationKind.SUSPENDED)
            suspended = self._revocations.get(key)
            if suspended is not None and suspended.record.at <= record.at:
                del self._revocations[key]


def _revocation(record: ExportedRecord) -> LostRevocation | None:
    kind = _kind(record)
    if kind is None or record.user_id is None:
        return None
    if record.account_sub is None and kind is not RevocationKind.IN_DOUBT:
        return None
    return LostRevocation(
        kind,
        record,
        record.user_id,
        record.account_sub,
        is_hijacking=record.outcome.startswith(EventKind.ACCOUNT_DISABLED),
    )


def _kind(record: ExportedRecord) -> RevocationKind | None:
    match record.action, record.outcome.split(":"):
        case "grant_revoked", [outcome] if outcome in _REVOKED_OUTCOMES:
            return RevocationKind.REVOKED
        case "grant_revoked", ["storage_unavailable"]:
            return RevocationKind.IN_DOUBT
        case "commit_lost", ["revocation", "restored"]:
            return RevocationKind.REVOKED
        # Also if the answer to the commit was lost: Google sent the event all the same.
        case "security_event", [_, "erased", *_]:
            return RevocationKind.ERASED
        case "security_event", [_, "held_back", *_]:
            return RevocationKind.SUSPENDED
    return None


def _batches(export: Iterable[ExportedRecord]) -> Iterator[list[ExportedRecord]]:
    records = iter(export)
    while batch := list(islice(records, _RECORDS_AT_ONCE)):
        yield batch


def read_export(lines: Iterable[str]) -> Iterator[ExportedRecord]:
    """Yield the records in the order of the lines; skip empty lines. Raises `ExportError`.

    The last line counts only with its line feed: without it, the export was cut off.
    """
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        if not line.endswith("\n"):
            raise ExportError(f"line {number} has no end: the export was cut off")
        record = _parse(line)
        if record is None:
            raise ExportError(f"line {number} is not a record of `broker audit export`")
        yield record


def _parse(line: str) -> ExportedRecord | None:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(fields, dict) or not _has_text_fields(fields):
        return None
    number, scopes, at = fields.get("id"), fields.get("scopes"), _time(fields.get("at"))
    if not isinstance(number, int) or isinstance(number, bool) or not 0 < number <= _MAX_ID:
        return None
    if not isinstance(scopes, list) or not all(isinstance(scope, str) for scope in scopes):
        return None
    if at is None:
        return None
    texts = {name: fields[name] for name in _TEXT_FIELDS}
    return ExportedRecord(id=number, at=at, scopes=tuple(scopes), **texts)


def _has_text_fields(fields: dict[str, Any]) -> bool:
    for name, may_be_null in _TEXT_FIELDS.items():
        value = fields.get(name, 0)
        if not isinstance(value, str) and not (may_be_null and value is None):
            return False
    return True


def _time(text: object) -> datetime | None:
    try:
        time = datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None
    return time.astimezone(UTC) if time is not None and time.tzinfo is not None else None
