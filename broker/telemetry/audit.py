"""The audit trail: who got whose token, when, with which scopes, and why was it refused.

Records wait in memory for at most a second and are written in batches, so that no hand-out ever
waits for the disk: a crash may lose the last second of them. While storage is away, or slower than
the broker hands out, they are kept up to a bound; what goes over it is dropped and counted.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import UTC, datetime
from typing import NewType, Protocol

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


def told_user(user_id: str | None, account_sub: str | None, scopes: Iterable[str]) -> Told:
    """The second half."""
    return b"\t".join((text_field(user_id), text_field(account_sub), array_field(scopes)))


_Waiting = tuple[float, Outcome, bytes, Telling | Told]
"""One event: when (seconds since 1970), what, by which request, and about whom."""


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
        self._waiting: deque[_Waiting] = deque()
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
        self.add(
            self._clock.epoch(),
            told_outcome(action, outcome, caller),
            text_field(request_id),
            told_user(user_id, account_sub, scopes),
        )

    def add(self, epoch: float, outcome: Outcome, request_id: bytes, about: Telling | Told) -> None:
        """Note that it happened then (seconds since 1970), by a request with a harmless id."""
        if len(self._waiting) >= self._held_at_most:
            self._metrics.audit_dropped.inc()
            return
        self._waiting.append((epoch, outcome, request_id, about))
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

    async def _write(self, batch: Sequence[_Waiting]) -> None:
        try:
            await self._database.copy_text_in("audit_events", _COLUMNS, _portions(batch))
        except BaseException:
            self._waiting.extendleft(reversed(batch))
            raise


async def _portions(batch: Sequence[_Waiting]) -> AsyncIterator[bytes]:
    for start in range(0, len(batch), _LINES_AT_ONCE):
        yield _lines(batch[start : start + _LINES_AT_ONCE])
        await asyncio.sleep(0)


def _lines(batch: Sequence[_Waiting]) -> bytes:
    second, date_and_time = -1, b""
    lines: list[bytes] = []
    for epoch, outcome, request_id, about in batch:
        microseconds = int(epoch * 1_000_000)
        if microseconds // 1_000_000 != second:
            # Making a date is dear, and many share one.
            second = microseconds // 1_000_000
            moment = datetime.fromtimestamp(second, UTC)
            date_and_time = moment.strftime("%Y-%m-%d %H:%M:%S").encode()
        told = about if isinstance(about, bytes) else about.told()
        lines.append(
            b"%b.%06d+00\t%b\t%b\t%b\n"
            % (date_and_time, microseconds % 1_000_000, outcome, told, request_id)
        )
    return b"".join(lines)
