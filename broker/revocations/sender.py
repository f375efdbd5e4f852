"""Sends queued revocations to Google until it has responded, with back-off."""

import asyncio
import logging
from datetime import timedelta

from broker.backoff import Backoff
from broker.clock import Clock
from broker.crypto.sealing import UnsealingError
from broker.google.errors import GoogleError, GoogleUnavailable, RequestRefused
from broker.google.oauth import GoogleOAuth
from broker.grants.revocation_outbox import QueuedRevocation, RevocationOutbox
from broker.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

_LEASE = timedelta(seconds=30)
"""Longer than any call to Google. When it expires, another replica takes over."""

POLL_SECONDS = 1.0
"""How often the outbox is polled; what this replica queues itself is sent immediately."""

CONCURRENT_REVOCATIONS = 10
"""Revocations that are sent to Google at a time."""

_FIRST_PAUSE = timedelta(seconds=2)
_LONGEST_PAUSE = timedelta(minutes=10)
BACKOFF = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
"""By the number of attempts to send one revocation."""


class RevocationSender:
    """Empties the revocation outbox. All replicas share the outbox by leases."""

    def __init__(
        self, *, outbox: RevocationOutbox, google: GoogleOAuth, metrics: Metrics, clock: Clock
    ) -> None:
        self._outbox = outbox
        self._google = google
        self._revocations = metrics.revocations
        self._clock = clock
        self.due = asyncio.Event()
        """Set when a revocation may have been queued."""

    async def send_all_due(self) -> None:
        """Send all revocations that are due now. Raises `StorageUnavailable`."""
        while await self._send_due():
            pass

    async def _send_due(self) -> int:
        """Send one batch; return how many it had."""
        claimed = await self._outbox.claim(lease=_LEASE, limit=CONCURRENT_REVOCATIONS)
        await asyncio.gather(*(self._send(queued) for queued in claimed))
        return len(claimed)

    async def _send(self, queued: QueuedRevocation) -> None:
        try:
            await self._google.revoke(self._outbox.open(queued))
        except RequestRefused as error:
            logger.exception(
                "Google refuses to revoke a token, and a retry would not help",
                extra={
                    "event": "google_revocation_refused",
                    "reason": error.reason,
                    "attempts": queued.attempts,
                },
            )
            await self._outbox.finish(queued)
            self._revocations.labels(queued.origin, "refused").inc()
        except (GoogleError, UnsealingError) as error:
            pause = BACKOFF.pause(queued.attempts)
            if isinstance(error, GoogleUnavailable) and error.retry_after is not None:
                pause = max(pause, error.retry_after)
            await self._outbox.postpone(queued, until=self._clock.now() + pause)
            self._revocations.labels(queued.origin, "retried").inc()
            logger.warning(
                "a revocation could not be sent to Google; it will be retried",
                extra={
                    "event": "google_revocation_postponed",
                    "reason": str(error),
                    "attempts": queued.attempts,
                },
            )
        else:
            await self._outbox.finish(queued)
            self._revocations.labels(queued.origin, "told").inc()
