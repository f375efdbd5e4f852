"""Sends due webhooks to the receiver until it accepts them or they are given up.

No database connection is held during a call to the receiver, and nothing else waits for the call.
"""

import asyncio
import logging
from datetime import timedelta

from broker.audit.trail import AuditTrail
from broker.clock import Clock
from broker.database.database import StorageUnavailable
from broker.telemetry.metrics import Metrics
from broker.webhooks.delivery import Delivery, DeliveryResult
from broker.webhooks.outbox import WebhookEvent, WebhookOutbox
from broker.webhooks.retry_schedule import ReceiverPace, next_attempt
from broker.webhooks.signing import MessageSigner

logger = logging.getLogger(__name__)

POLL_SECONDS = 1.0
"""The poll interval of the outbox; a change of a grant also triggers a poll immediately."""

_CLOSE_TIMEOUT = timedelta(seconds=3)
"""A receiver that does not respond delays the broker's stop by no more than this."""


class WebhookSender:
    """Claims, sends and settles events, a bounded number at a time."""

    def __init__(
        self,
        *,
        outbox: WebhookOutbox,
        delivery: Delivery,
        signer: MessageSigner,
        audit: AuditTrail,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._outbox = outbox
        self._delivery = delivery
        self._signer = signer
        self._audit = audit
        self._sent = metrics.webhooks
        self._clock = clock
        self._pace = ReceiverPace(clock)
        self._deliveries: set[asyncio.Task[None]] = set()
        self._waiting = metrics.webhooks_waiting
        self.due = asyncio.Event()
        """Set when there may be a new event to send."""

    async def send_due(self) -> None:
        """Start to send due events, within the limit. Raises `StorageUnavailable`."""
        room = self._pace.limit() - len(self._deliveries)
        if room <= 0:
            return
        for event in await self._outbox.claim(limit=room):
            task = asyncio.create_task(self._send(event))
            self._deliveries.add(task)
            task.add_done_callback(self._on_sent)

    def _on_sent(self, task: asyncio.Task[None]) -> None:
        self._deliveries.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error(
                "sending a webhook failed unexpectedly; it will be sent again",
                exc_info=task.exception(),
                extra={"event": "webhook_send_failed"},
            )
        # There is room now, and a later event of the same grant may have waited for this one.
        self.due.set()

    async def aclose(self) -> None:
        """Wait briefly for deliveries under way; the rest is sent again after its lease."""
        if self._deliveries:
            _, late = await asyncio.wait(self._deliveries, timeout=_CLOSE_TIMEOUT.total_seconds())
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def tidy(self) -> None:
        """Give up and purge old events, and update the gauge. Raises `StorageUnavailable`."""
        for event in await self._outbox.give_up_old():
            self._note_given_up(event, "too old")
        await self._outbox.purge_given_up()
        self._waiting.set(await self._outbox.count_unsent())

    async def _send(self, event: WebhookEvent) -> None:
        message = self._signer.sign(event, attempted_at=self._clock.now())
        result = await self._delivery.post(message)
        self._pace.note(result)
        try:
            await self._settle(event, result)
        except StorageUnavailable as error:
            # It stays claimed, and is sent again with the same id after the lease.
            logger.warning(
                "could not store a webhook's delivery result; it will be sent again",
                extra={
                    "event": "webhook_result_not_stored",
                    "type": event.type,
                    "id": str(event.id),
                    "reason": str(error),
                },
            )

    async def _settle(self, event: WebhookEvent, result: DeliveryResult) -> None:
        if result.failure is None:
            await self._outbox.finish(event)
            self._sent.labels(event.type, "delivered").inc()
            self._record(event, "delivered")
            return
        if result.is_gone:
            logger.error(
                "the webhook receiver is gone (410); it is tried again every hour",
                extra={"event": "webhook_receiver_gone"},
            )
        until = next_attempt(event.attempts, result, self._clock.now())
        if until is None:
            if await self._outbox.give_up(event, failure=result.failure):
                self._note_given_up(event, result.failure)
            return
        await self._outbox.postpone(event, until=until, failure=result.failure)
        self._sent.labels(event.type, "gone" if result.is_gone else "retried").inc()
        logger.warning(
            "the receiver did not accept a webhook; it will be sent again",
            extra={"event": "webhook_postponed", **_about(event, result.failure)},
        )

    def _note_given_up(self, event: WebhookEvent, failure: str) -> None:
        self._sent.labels(event.type, "given_up").inc()
        self._record(event, "given_up")
        logger.error(
            "gave up a webhook: the receiver was not notified of this change",
            extra={"event": "webhook_given_up", **_about(event, failure)},
        )

    def _record(self, event: WebhookEvent, outcome: str) -> None:
        self._audit.record(
            action="webhook",
            outcome=f"{outcome}:{event.type}",
            user_id=event.user_id,
            account_sub=event.google_sub,
        )


def _about(event: WebhookEvent, failure: str) -> dict[str, object]:
    return {
        "type": event.type,
        "id": str(event.id),
        "reason": failure,
        "attempts": event.attempts,
    }


class NoWebhookReceiver:
    """Replaces the sender if no receiver is configured: purges the outbox, which triggers fill."""

    def __init__(self, outbox: WebhookOutbox) -> None:
        self._outbox = outbox

    async def tidy(self) -> None:
        """Delete events after an hour. Raises `StorageUnavailable`."""
        await self._outbox.purge_without_receiver()
        await self._outbox.purge_given_up()
