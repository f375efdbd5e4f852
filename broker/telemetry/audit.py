"""The audit trail: who got whose token, when, with which scopes, and why was it refused.

Records wait in memory for at most a second and are written in batches, so that no hand-out ever
waits for the disk: a crash may lose the last second of them. While storage is away, or slower than
the broker hands out, they are kept up to a bound; what goes over it is dropped and counted.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import UTC, datetime
from typing import NewType

from broker.clock import Clock
from broker.database.copy_text import array_field, text_field
from broker.database.database import Database
from broker.telemetry.metrics import Metrics

FLUSH_SECONDS = 0.5
"""How often what waits is written; sooner, if much waits."""

MUCH = 5_000
"""So many records that wait are written at once, however long ago the last ones were."""

_RECORDS_AT_ONCE = 10_000
"""In one statement, which then stays far below the time that a statement may take."""

_COLUMNS = (
    "at", "action", "outcome", "caller", "user_id", "account_sub", "scopes", "request_id",
)  # fmt: skip

_LINES_AT_ONCE = 500
"""Requests are answered between two such portions of a statement."""

Happening = NewType("Happening", bytes)
"""What can happen again and again, as the columns between `at` and `request_id`."""


def happening(
    *,
    action: str,
    outcome: str,
    caller: str | None = None,
    user_id: str | None = None,
    account_sub: str | None = None,
    scopes: Iterable[str] = (),
) -> Happening:
    """A record without its time and request; what happens often keeps its own."""
    names = (action, outcome, caller, user_id, account_sub)
    fields = [*map(text_field, names), array_field(scopes)]
    return Happening(b"\t".join(fields))


class AuditTrail:
    """Takes records at once and writes them soon."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        metrics: Metrics,
        *,
        held_at_most: int = 250_000,
    ) -> None:
        self._database = database
        self._clock = clock
        self._metrics = metrics
        self._held_at_most = held_at_most
        self._waiting: deque[tuple[float, Happening, bytes]] = deque()
        metrics.audit_waiting.set_function(lambda: len(self._waiting))
        self.due = asyncio.Event()
        """Set when so much waits that it should be written before its time."""

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
        from_stranger: bool = False,
    ) -> None:
        """Note one event; never waits, never fails.

        What `from_stranger` anyone could cause leaves most of the room to what callers did.
        """
        if from_stranger and len(self._waiting) >= self._held_at_most // 10:
            self._metrics.audit_dropped.inc()
            return
        what = happening(
            action=action,
            outcome=outcome,
            caller=caller,
            user_id=user_id,
            account_sub=account_sub,
            scopes=scopes,
        )
        self.add(self._clock.epoch(), what, text_field(request_id))

    def add(self, epoch: float, what: Happening, request_id: bytes) -> None:
        """Note that it happened then (seconds since 1970), by a request with a harmless id."""
        if len(self._waiting) >= self._held_at_most:
            self._metrics.audit_dropped.inc()
            return
        self._waiting.append((epoch, what, request_id))
        if len(self._waiting) == MUCH:
            self.due.set()

    async def flush(self) -> None:
        """Write all that waits now; what comes in meanwhile is for the next time.

        Raises `StorageUnavailable`; what was not written yet then goes on waiting.
        """
        left = len(self._waiting)
        while left > 0:
            count = min(left, _RECORDS_AT_ONCE)
            await self._write([self._waiting.popleft() for _ in range(count)])
            left -= count
        if len(self._waiting) >= MUCH:
            self.due.set()

    async def _write(self, batch: Sequence[tuple[float, Happening, bytes]]) -> None:
        try:
            await self._database.copy_text_in("audit_events", _COLUMNS, _portions(batch))
        except BaseException:
            self._waiting.extendleft(reversed(batch))
            raise


async def _portions(batch: Sequence[tuple[float, Happening, bytes]]) -> AsyncIterator[bytes]:
    for start in range(0, len(batch), _LINES_AT_ONCE):
        yield _lines(batch[start : start + _LINES_AT_ONCE])
        await asyncio.sleep(0)


def _lines(batch: Sequence[tuple[float, Happening, bytes]]) -> bytes:
    second, date_and_time = -1, b""
    lines: list[bytes] = []
    for epoch, what, request_id in batch:
        microseconds = int(epoch * 1_000_000)
        if microseconds // 1_000_000 != second:
            # Making a date is dear, and many share one.
            second = microseconds // 1_000_000
            moment = datetime.fromtimestamp(second, UTC)
            date_and_time = moment.strftime("%Y-%m-%d %H:%M:%S").encode()
        lines.append(
            b"%b.%06d+00\t%b\t%b\n" % (date_and_time, microseconds % 1_000_000, what, request_id)
        )
    return b"".join(lines)
