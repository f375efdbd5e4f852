"""What a restored database does not know: records of an export that its trail lacks, and the grants
that ended by them.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from itertools import islice

from broker.database.database import Connection
from broker.database.queries import load_queries
from broker.google.security_events import EventKind
from broker.recovery.exported import ExportedRecord

_SQL = load_queries("broker.recovery")
_RECORDS_AT_ONCE = 2_000

REPLAYED = "after_restore"
"""The outcome of what a replay records; it is replayed itself after another restore."""

_REVOKED = frozenset({"ok", "by_user", REPLAYED})


class How(StrEnum):
    """How a grant ended, or whether it did."""

    REVOKED = "revoked"
    ERASED = "erased"
    """Google's security event took the tokens away: only a new consent brings the grant back."""
    HELD_BACK = "held back"
    """Google disabled the account."""
    IN_DOUBT = "in doubt"
    """Somebody asked for a revocation, and was told that it may not have taken place."""


@dataclass(frozen=True, slots=True)
class Ending:
    """The end of one user's grant for one account, or for all where that is not said."""

    how: How
    record: ExportedRecord
    user_id: str
    account_sub: str | None
    is_hijacking: bool = False


@dataclass(slots=True)
class LostEndings:
    """Goes through an export once, beside the trail, and keeps what ended grants."""

    records: int = 0
    known: int = 0
    """Records that the trail has as well."""
    first_lost_at: datetime | None = None
    last_lost_at: datetime | None = None
    _endings: dict[tuple[str, str | None, How], Ending] = field(default_factory=dict)

    @property
    def lost(self) -> int:
        """How many records the trail lacks."""
        return self.records - self.known

    @property
    def endings(self) -> Sequence[Ending]:
        """The last of each kind for each grant, in the order in which they happened."""
        return sorted(self._endings.values(), key=lambda ending: ending.record.at)

    async def read(self, connection: Connection, export: Iterable[ExportedRecord]) -> None:
        """Read all of it. Raises what `export` raises."""
        for portion in _portions(export):
            rows = await connection.fetch(_SQL["records_by_id"], [each.id for each in portion])
            there = {tuple(row.values()) for row in rows}
            for record in portion:
                self.records += 1
                if record.identity in there:
                    self.known += 1
                else:
                    self._note(record)

    def _note(self, record: ExportedRecord) -> None:
        self.first_lost_at = min(self.first_lost_at or record.at, record.at)
        self.last_lost_at = max(self.last_lost_at or record.at, record.at)
        ending = _ending(record)
        if ending is None:
            self._note_return(record)
            return
        key = (ending.user_id, ending.account_sub, ending.how)
        before = self._endings.get(key)
        if before is None or before.record.at <= record.at:
            self._endings[key] = ending

    def _note_return(self, record: ExportedRecord) -> None:
        """What Google had disabled, it enabled again."""
        if record.action == "security_event" and ":brought_back" in record.outcome:
            key = (record.user_id or "", record.account_sub, How.HELD_BACK)
            held = self._endings.get(key)
            if held is not None and held.record.at <= record.at:
                del self._endings[key]


def _ending(record: ExportedRecord) -> Ending | None:
    how = _how(record)
    if how is None or record.user_id is None:
        return None
    if record.account_sub is None and how is not How.IN_DOUBT:
        return None
    return Ending(
        how,
        record,
        record.user_id,
        record.account_sub,
        is_hijacking=record.outcome.startswith(EventKind.ACCOUNT_DISABLED),
    )


def _how(record: ExportedRecord) -> How | None:
    match record.action, record.outcome.split(":"):
        case "grant_revoked", [outcome] if outcome in _REVOKED:
            return How.REVOKED
        case "grant_revoked", ["storage_unavailable"]:
            return How.IN_DOUBT
        case "commit_lost", ["revocation", "restored"]:
            return How.REVOKED
        # Also where the commit's answer was lost: it is Google's word all the same.
        case "security_event", [_, "erased", *_]:
            return How.ERASED
        case "security_event", [_, "held_back", *_]:
            return How.HELD_BACK
    return None


def _portions(export: Iterable[ExportedRecord]) -> Iterator[list[ExportedRecord]]:
    records = iter(export)
    while portion := list(islice(records, _RECORDS_AT_ONCE)):
        yield portion
