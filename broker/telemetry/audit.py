"""The audit trail: who got whose token, when, with which scopes, and why was it refused.

Records wait in memory for at most a second and are written in batches, so that no hand-out ever
waits for the disk: a crash may lose the last second of them. While storage is away they are kept up
to a bound; what goes over it is dropped and counted.
"""

from collections import deque
from collections.abc import Iterable
from datetime import datetime

from broker.clock import Clock
from broker.database.database import Database
from broker.telemetry.metrics import Metrics

FLUSH_SECONDS = 0.5
"""How often what waits is written."""

_COLUMNS = (
    "at", "action", "outcome", "caller", "user_id", "account_sub", "scopes", "request_id",
)  # fmt: skip

_Record = tuple[
    datetime, str, str, str | None, str | None, str | None, list[str] | None, str | None
]


class AuditTrail:
    """Takes records at once and writes them soon."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        metrics: Metrics,
        *,
        held_at_most: int = 100_000,
    ) -> None:
        self._database = database
        self._clock = clock
        self._metrics = metrics
        self._held_at_most = held_at_most
        self._waiting: deque[_Record] = deque()

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
    ) -> None:
        """Note one event; never waits, never fails."""
        if len(self._waiting) >= self._held_at_most:
            self._metrics.audit_dropped.inc()
            return
        self._waiting.append(
            (
                self._clock.now(),
                action,
                outcome,
                caller,
                user_id,
                account_sub,
                list(scopes) or None,
                request_id,
            )
        )

    async def flush(self) -> None:
        """Write what waits. Raises `StorageUnavailable`; the records then go on waiting."""
        batch = [self._waiting.popleft() for _ in range(len(self._waiting))]
        if not batch:
            return
        try:
            await self._database.copy_in("audit_events", _COLUMNS, batch)
        except BaseException:
            self._waiting.extendleft(reversed(batch))
            raise
