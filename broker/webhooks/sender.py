"""Sends what is due to the product's receiver until it was taken, or given up.

No database connection is held while the receiver is waited for, and nothing else waits for it.
"""

import asyncio
import logging
from datetime import timedelta

from broker.audit.trail import AuditTrail
from broker.clock import Clock
from broker.database.database import StorageUnavailable
from broker.telemetry.metrics import Metrics
from broker.webhooks.delivery import Delivery, Outcome
from broker.webhooks.messages import MessageSigner
from broker.webhooks.outbox import WebhookEvent, WebhookOutbox
from broker.webhooks.schedule import Pace, next_attempt

logger = logging.getLogger(__name__)

POLL_SECONDS = 1.0
"""How often the outbox is looked at; after a change of a grant it is looked at at once."""

_ENDING = timedelta(seconds=3)
"""When the broker stops; a hanging receiver must not keep it from that."""


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
        self._pace = Pace(clock)
        self._under_way: set[asyncio.Task[None]] = set()
        self._waiting = metrics.webhooks_waiting
        self.due = asyncio.Event()
        """Set when there may be something new to send."""

    async def send_due(self) -> None:
        """Begin to send what is due, as far as there is room. Raises `StorageUnavailable`."""
        room = self._pace.most_at_once() - len(self._under_way)
        if room <= 0:
            return
        for event in await self._outbox.claim(limit=room):
            task = asyncio.create_task(self._send(event))
            self._under_way.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error(
                "sending a webhook failed; it will be sent again", exc_info=task.exception()
            )
        # There is room now, and a later event of the same grant may have waited for this one.
        self.due.set()

    async def aclose(self) -> None:
        """Let what is under way end; what does not is sent again when its lease has run out."""
        if self._under_way:
            _, late = await asyncio.wait(self._under_way, timeout=_ENDING.total_seconds())
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def tidy(self) -> None:
        """Give up and forget what is too old, and count. Raises `StorageUnavailable`."""
        for event in await self._outbox.give_up_old():
            self._note_given_up(event, "too old")
        await self._outbox.forget_given_up()
        self._waiting.set(await self._outbox.count_waiting())

    async def _send(self, event: WebhookEvent) -> None:
        message = self._signer.sign(event, attempted_at=self._clock.now())
        outcome = await self._delivery.post(message)
        self._pace.note(outcome)
        try:
            await self._settle(event, outcome)
        except StorageUnavailable as error:
            # It stays claimed, and is sent again with the same id when the lease has run out.
            logger.warning(
                "what became of a webhook could not be noted; it will be sent again",
                extra={"type": event.type, "id": str(event.id), "reason": str(error)},
            )

    async def _settle(self, event: WebhookEvent, outcome: Outcome) -> None:
        if outcome.failure is None:
            await self._outbox.finish(event)
            self._sent.labels(event.type, "delivered").inc()
            self._record(event, "delivered")
            return
        if outcome.is_gone:
            logger.error("the webhook receiver is gone (410); it is asked again once an hour")
        until = next_attempt(event.attempts, outcome, self._clock.now())
        if until is None:
            if await self._outbox.give_up(event, failure=outcome.failure):
                self._note_given_up(event, outcome.failure)
            return
        await self._outbox.postpone(event, until=until, failure=outcome.failure)
        self._sent.labels(event.type, "gone" if outcome.is_gone else "retried").inc()
        logger.warning(
            "a webhook was not taken; it will be sent again",
            extra={
                "type": event.type,
                "id": str(event.id),
                "reason": outcome.failure,
                "attempts": event.attempts,
            },
        )

    def _note_given_up(self, event: WebhookEvent, failure: str) -> None:
        self._sent.labels(event.type, "given_up").inc()
        self._record(event, "given_up")
        logger.error(
            "a webhook is given up: the product does not know of this change",
            extra={
                "type": event.type,
                "id": str(event.id),
                "reason": failure,
                "attempts": event.attempts,
            },
        )

    def _record(self, event: WebhookEvent, outcome: str) -> None:
        self._audit.record(
            action="webhook",
            outcome=f"{outcome}:{event.type}",
            user_id=event.user_id,
            account_sub=event.google_sub,
        )
