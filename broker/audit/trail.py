"""The audit trail: records every hand-out and refusal in memory, and writes them in batches.

A crash may lose the last second of records: no hand-out waits for the disk. While PostgreSQL is
down or too slow, records stay in a bounded buffer. Records over that bound are only counted, by
action, outcome and caller. Each batch gets a MAC, which reveals a later change or removal. Records
that unauthenticated clients cause, and browsers with one user's links, are capped per minute; a
summary record states how many were left out.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable

from broker.audit.batch_macs import AuditKeys
from broker.audit.batch_writer import AuditChain, UnsignedBatch
from broker.audit.records import (
    AuditRecord,
    OutcomeFields,
    RecordSubject,
    SubjectFields,
    outcome_fields,
    prefixed_outcome,
    subject_fields,
)
from broker.audit.unauthenticated_cap import CappedKind, UnauthenticatedCap
from broker.clock import Clock
from broker.database.copy_text import text_field
from broker.database.database import Database
from broker.telemetry.metrics import Metrics

FLUSH_SECONDS = 0.5
"""The flush interval; the trail is flushed sooner at `FLUSH_THRESHOLD` records."""

FLUSH_THRESHOLD = 5_000
"""This many buffered records are flushed immediately."""

NOT_RECORDED = "not_recorded"
"""The outcome of a summary record begins with this; the number of records and their outcome follow.
"""

_BATCH_SIZE = 10_000
"""Records in one statement, which stays far below the statement timeout."""


class AuditTrail:
    """Buffers audit records and writes them in batches."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        metrics: Metrics,
        keys: AuditKeys,
        *,
        capacity: int = 250_000,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`capacity` bounds the buffer, in records; `monotonic` returns seconds."""
        self.chain = AuditChain(database, clock, metrics, keys)
        self._clock = clock
        self._metrics = metrics
        self._capacity = capacity
        self._cap = UnauthenticatedCap(monotonic)
        self._buffer: deque[AuditRecord] = deque()
        self._in_doubt: tuple[int, int] | None = None
        """The id of a batch that may or may not be written, and its number of records: they are the
        first of the buffer.
        """
        self._writing = asyncio.Lock()
        self._dropped: Counter[OutcomeFields] = Counter()
        """Records dropped since the last summary record. The number of keys is bounded."""
        metrics.audit_waiting.set_function(lambda: len(self._buffer))
        self.due = asyncio.Event()
        """Set when the buffer should be flushed before the interval ends."""

    def record(
        self,
        *,
        action: str,
        outcome: str,
        caller: str | None = None,
        user_id: str | None = None,
        account_sub: str | None = None,
        scopes: Iterable[str] = (),
        request_id: str | None = None,
        unauthenticated: bool = False,
    ) -> bool:
        """Record one event; return True if it gets a record of its own. Never waits, never fails.

        `unauthenticated` events could be caused by anyone, so they are capped: they must neither
        fill the table nor take the room of callers' records. With a `caller`, anyone is a browser
        with a link that this caller made for this user.
        """
        if unauthenticated:
            link = (caller, user_id) if caller is not None else ()
            has_room = len(self._buffer) < self._capacity // 10
            if not self._cap.admit(CappedKind(action, outcome, *link), has_room=has_room):
                self._metrics.audit_left_out.inc()
                return False
        self.add(
            self._clock.epoch(),
            outcome_fields(action, outcome, caller),
            text_field(request_id),
            subject_fields(user_id, account_sub, scopes),
        )
        return True

    def add(
        self,
        epoch: float,
        outcome: OutcomeFields,
        request_id: bytes,
        subject: RecordSubject | SubjectFields,
    ) -> None:
        """Record an event at `epoch` (seconds since 1970); `request_id` needs no escaping."""
        if len(self._buffer) >= self._capacity:
            self.count_dropped(outcome)
            return
        self._buffer.append((epoch, outcome, request_id, subject))
        if len(self._buffer) == FLUSH_THRESHOLD:
            self.due.set()

    def has_room(self, count: int) -> bool:
        """True if `count` more records leave 10 % of the buffer free.

        Writers that can outpace PostgreSQL check this first: the rest is for those that don't.
        """
        return len(self._buffer) + count <= self._capacity * 9 // 10

    def count_dropped(self, outcome: OutcomeFields) -> None:
        """Count a record that has no room; a summary record follows once there is room."""
        self._metrics.audit_dropped.inc()
        self._dropped[outcome] += 1

    async def flush(self, *, is_last: bool = False) -> None:
        """Write all records that are buffered now; those that arrive meanwhile wait for the next.

        `is_last` also writes the summary records of the current minute. Raises
        `StorageUnavailable`; unwritten records then stay in the buffer.
        """
        self._add_summaries(is_last=is_last)
        await self._write_all()
        if is_last and self._dropped:
            self._add_summaries(is_last=True)
            await self._write_all()

    async def _write_all(self) -> None:
        async with self._writing:
            left = len(self._buffer)
            while left > 0:
                left -= await self._write(left)
        if len(self._buffer) >= FLUSH_THRESHOLD:
            self.due.set()

    def _add_summaries(self, *, is_last: bool) -> None:
        """Buffer one summary record for each kind of records that were capped or dropped."""
        if len(self._buffer) >= self._capacity:
            return
        for kind, count in self._cap.pop_left_out(is_last=is_last).items():
            outcome = f"{NOT_RECORDED}:{count}:{kind.outcome}"
            self.record(**kind._replace(outcome=outcome)._asdict())
        while self._dropped and len(self._buffer) < self._capacity:
            fields, count = self._dropped.popitem()
            summary = prefixed_outcome(fields, f"{NOT_RECORDED}:{count}:")
            self.add(self._clock.epoch(), summary, text_field(None), subject_fields(None, None, ()))

    async def _write(self, at_most: int) -> int:
        """Write one batch; return its number of records."""
        in_doubt = self._in_doubt
        batch_id, count = in_doubt or (self.chain.new_batch_id(), min(at_most, _BATCH_SIZE))
        records = [self._buffer.popleft() for _ in range(count)]
        try:
            is_written = await self.chain.append(
                UnsignedBatch(batch_id, records, in_doubt is not None)
            )
        except BaseException:
            self._buffer.extendleft(reversed(records))
            self._in_doubt = (batch_id, count)
            raise
        self._in_doubt = None
        if not is_written:
            self._buffer.extendleft(reversed(records))
            return 0
        return count
