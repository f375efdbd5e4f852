"""When an event is sent again, and when the receiver gets a pause from all events."""

from datetime import datetime, timedelta

from broker.backoff import jittered
from broker.clock import Clock
from broker.webhooks.delivery import MAX_CONCURRENT, DeliveryResult

RETRY_PAUSES = (
    timedelta(seconds=5),
    timedelta(minutes=5),
    timedelta(minutes=30),
    timedelta(hours=2),
    timedelta(hours=5),
    timedelta(hours=10),
    timedelta(hours=14),
    timedelta(hours=20),
    timedelta(hours=24),
)
"""After the first failure, the second, …: the schedule that Standard Webhooks recommends."""

_THROTTLED_PAUSE = timedelta(seconds=5)
_GONE_PAUSE = timedelta(hours=1)
_FAILURES_IN_A_ROW = 5


def next_attempt(attempts: int, result: DeliveryResult, now: datetime) -> datetime | None:
    """Return when an event that failed this often is due again, with jitter; None for never."""
    if attempts > len(RETRY_PAUSES):
        return None
    pause = jittered(RETRY_PAUSES[attempts - 1])
    return now + max(pause, result.retry_after or pause)


class ReceiverPace:
    """Limits concurrent deliveries by the receiver's recent results, in each replica."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failures = 0
        self._paused_until: datetime | None = None

    def limit(self) -> int:
        """Return 0 during a pause that the receiver asked for, 1 while it seems to be down."""
        if self._paused_until is not None and self._clock.now() < self._paused_until:
            return 0
        return 1 if self._failures >= _FAILURES_IN_A_ROW else MAX_CONCURRENT

    def note(self, result: DeliveryResult) -> None:
        """Adjust to the result of an attempt."""
        if result.failure is None:
            self._failures = 0
            return
        self._failures += 1
        pause = _GONE_PAUSE if result.is_gone else result.retry_after
        if pause is None and result.is_throttling:
            pause = _THROTTLED_PAUSE
        if pause is not None:
            until = self._clock.now() + pause
            self._paused_until = max(self._paused_until or until, until)
