"""An audit export as it is read back: JSON lines, of which nothing is believed unchecked."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

_LARGEST_ID = 2**63 - 1
_TEXTS = {"action": False, "outcome": False, "caller": True, "user_id": True, "account_sub": True,
          "request_id": True}  # fmt: skip
"""Each field of text, and whether it may be null."""


class ExportError(Exception):
    """A line is not a record of `broker audit export`; the message says which, and shows none."""


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
        """What the same record has in the trail; an id alone is given again after a restore."""
        return (self.id, self.at, self.action, self.outcome, self.user_id, self.account_sub)


def read_export(lines: Iterable[str]) -> Iterator[ExportedRecord]:
    """Every record, in the order of the lines. Raises `ExportError`; empty lines are passed over.

    The last line counts only with its line feed: without it, the export was cut short.
    """
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        if not line.endswith("\n"):
            raise ExportError(f"line {number} has no end: the export was cut short")
        record = _record(line)
        if record is None:
            raise ExportError(f"line {number} is not a record of `broker audit export`")
        yield record


def _record(line: str) -> ExportedRecord | None:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(fields, dict) or not _are_texts(fields):
        return None
    number, scopes, at = fields.get("id"), fields.get("scopes"), _moment(fields.get("at"))
    if not isinstance(number, int) or isinstance(number, bool) or not 0 < number <= _LARGEST_ID:
        return None
    if not isinstance(scopes, list) or not all(isinstance(scope, str) for scope in scopes):
        return None
    if at is None:
        return None
    texts = {name: fields[name] for name in _TEXTS}
    return ExportedRecord(id=number, at=at, scopes=tuple(scopes), **texts)


def _are_texts(fields: dict[str, Any]) -> bool:
    for name, may_be_null in _TEXTS.items():
        value = fields.get(name, 0)
        if not isinstance(value, str) and not (may_be_null and value is None):
            return False
    return True


def _moment(text: object) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None
    return moment.astimezone(UTC) if moment is not None and moment.tzinfo is not None else None
