"""The audit trail: who got whose token, when, with which scopes, and why was it refused.

Records wait in memory for at most a second and are written in batches, so that no hand-out ever
waits for the disk: a crash may lose the last second of them. While storage is away, or slower than
the broker hands out, they are kept up to a bound; of what goes over it only the number is written,
by kind and caller. Each batch is sealed, so that a record that is changed or removed later is
missed. Of what strangers do, and browsers with one user's links in vain, there are only so many
records a minute, and one that tells how many there are not.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable

from broker.audit.batch_macs import SealKeys
from broker.audit.chain import AuditChain, Batch
from broker.audit.records import (
    Outcome,
    Record,
    Telling,
    Told,
    told_count,
    told_outcome,
    told_user,
)
from broker.audit.unauthenticated_cap import Kind, StrangerShare
from broker.clock import Clock
from broker.database.copy_text import text_field
from broker.database.database import Database
from broker.telemetry.metrics import Metrics

__all__ = [
    "FLUSH_SECONDS",
    "MUCH",
    "NOT_RECORDED",
    "AuditTrail",
    "Outcome",
    "Telling",
    "Told",
    "told_outcome",
    "told_user",
]

FLUSH_SECONDS = 0.5
"""How often what waits is written; sooner, if much waits."""

MUCH = 5_000
"""So many records that wait are written at once, however long ago the last ones were."""

NOT_RECORDED = "not_recorded"
"""The outcome of a record that stands for others begins so; their number and outcome follow."""

_RECORDS_AT_ONCE = 10_000
"""In one statement, which then stays far below the time that a statement may take."""


class AuditTrail:
    """Takes records at once and writes them soon."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        metrics: Metrics,
        keys: SealKeys,
        *,
        held_at_most: int = 250_000,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`monotonic` gives seconds, and never goes back."""
        self.chain = AuditChain(database, clock, metrics, keys)
        self._clock = clock
        self._metrics = metrics
        self._held_at_most = held_at_most
        self._strangers = StrangerShare(monotonic)
        self._waiting: deque[Record] = deque()
        self._tried: tuple[int, int] | None = None
        """The id of a batch that may be written or not, and how many of the first that wait it is.
        """
        self._writing = asyncio.Lock()
        self._dropped: Counter[Outcome] = Counter()
        """Of each kind and caller, since it was last told: there is a bounded number of them."""
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
    ) -> bool:
        """Note one event; never waits, never fails. Tells whether it has a record of its own.

        What `from_stranger` anyone could cause is counted instead, once there is much of it: it
        must neither fill the table nor take the room of what callers did. With a `caller` it is
        anyone who has a link that it made for this user.
        """
        if from_stranger:
            whose = (caller, user_id) if caller is not None else ()
            has_room = len(self._waiting) < self._held_at_most // 10
            if not self._strangers.takes(Kind(action, outcome, *whose), has_room=has_room):
                self._metrics.audit_left_out.inc()
                return False
        self.add(
            self._clock.epoch(),
            told_outcome(action, outcome, caller),
            text_field(request_id),
            told_user(user_id, account_sub, scopes),
        )
        return True

    def add(self, epoch: float, outcome: Outcome, request_id: bytes, about: Telling | Told) -> None:
        """Note that it happened then (seconds since 1970), by a request with a harmless id."""
        if len(self._waiting) >= self._held_at_most:
            self.leave_out(outcome)
            return
        self._waiting.append((epoch, outcome, request_id, about))
        if len(self._waiting) == MUCH:
            self.due.set()

    def has_room(self, count: int) -> bool:
        """Whether so many more records leave a tenth of all room to those who don't ask.

        For whoever hands out more than can be written for long: it would have what others do
        dropped.
        """
        return len(self._waiting) + count <= self._held_at_most * 9 // 10

    def leave_out(self, outcome: Outcome) -> None:
        """Count one that finds no room; the number is written once there is some."""
        self._metrics.audit_dropped.inc()
        self._dropped[outcome] += 1

    async def flush(self, *, is_last: bool = False) -> None:
        """Write all that waits now; what comes in meanwhile is for the next time.

        `is_last` says that there is none. Raises `StorageUnavailable`; what was not written yet
        then goes on waiting.
        """
        self._tell_left_out(is_last=is_last)
        await self._write_all()
        if is_last and self._dropped:
            self._tell_left_out(is_last=True)
            await self._write_all()

    async def _write_all(self) -> None:
        async with self._writing:
            left = len(self._waiting)
            while left > 0:
                left -= await self._write(left)
        if len(self._waiting) >= MUCH:
            self.due.set()

    def _tell_left_out(self, *, is_last: bool) -> None:
        """A record for each kind of which some were left out, or found no room, in its own action's
        name.
        """
        if len(self._waiting) >= self._held_at_most:
            return
        for kind, count in self._strangers.take_untold(is_last=is_last).items():
            outcome = f"{NOT_RECORDED}:{count}:{kind.outcome}"
            self.record(**kind._replace(outcome=outcome)._asdict())
        while self._dropped and len(self._waiting) < self._held_at_most:
            what, count = self._dropped.popitem()
            counted = told_count(what, f"{NOT_RECORDED}:{count}:")
            self.add(self._clock.epoch(), counted, text_field(None), told_user(None, None, ()))

    async def _write(self, at_most: int) -> int:
        """Write one batch, and tell how many records it had."""
        tried = self._tried
        batch_id, count = tried or (
            self.chain.new_batch_id(),
            min(at_most, _RECORDS_AT_ONCE),
        )
        records = [self._waiting.popleft() for _ in range(count)]
        try:
            is_written = await self.chain.append(Batch(batch_id, records, tried is not None))
        except BaseException:
            self._waiting.extendleft(reversed(records))
            self._tried = (batch_id, count)
            raise
        self._tried = None
        if not is_written:
            self._waiting.extendleft(reversed(records))
            return 0
        return count
