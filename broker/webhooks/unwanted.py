"""Where no receiver is configured: keeps the outbox, which fills by itself, from growing."""

from broker.webhooks.outbox import WebhookOutbox


class UnwantedEvents:
    """Events with nobody to tell."""

    def __init__(self, outbox: WebhookOutbox) -> None:
        self._outbox = outbox

    async def tidy(self) -> None:
        """Forget them after an hour. Raises `StorageUnavailable`."""
        await self._outbox.forget_unwanted()
        await self._outbox.forget_given_up()
