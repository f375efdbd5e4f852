"""Bounds how long cached tokens are served without news of revocations.

The bound is BROKER_STALE_TOKENS_AT_MOST. A replica that can't reach the primary hears of no
revocation: past the bound its cache is dropped, and nothing is cached until the primary answers.
"""

import asyncio
import logging
from datetime import timedelta

from broker.tokens.cache.token_cache import HeldTokens

logger = logging.getLogger(__name__)


class StalenessLimit:
    """A timer that each answered poll of the primary starts anew."""

    def __init__(self, at_most: timedelta | None, held: HeldTokens) -> None:
        """Without `at_most`, cached tokens are served until they expire."""
        self._at_most = at_most
        self._held = held
        self._timer: asyncio.TimerHandle | None = None

    def on_poll(self, began: float) -> None:
        """A poll that began then, by the event loop's clock, was answered."""
        if self._at_most is None:
            return
        loop = asyncio.get_running_loop()
        ends_at = began + self._at_most.total_seconds()
        self.close()
        self._timer = loop.call_at(ends_at, self._expire)
        if self._held.is_suspended and loop.time() < ends_at:
            self._held.is_suspended = False
            logger.warning("PostgreSQL has answered again: tokens are cached as before")

    def _expire(self) -> None:
        if not self._held.is_suspended:
            logger.warning(
                "no answer from PostgreSQL for longer than BROKER_STALE_TOKENS_AT_MOST: "
                "the cached tokens are dropped, and none is cached until it answers",
                extra={"tokens": len(self._held)},
            )
        self._held.is_suspended = True
        self._held.forget_all()

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
