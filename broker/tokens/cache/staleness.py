"""Bounds how long cached tokens are served without knowledge of revocations.

The bound is BROKER_STALE_TOKENS_AT_MOST. A replica that cannot reach the primary learns of no
revocation: past the bound its cache is emptied, and nothing is cached until the primary answers.
"""

import asyncio
import logging
from datetime import timedelta

from broker.tokens.cache.token_cache import TokenCache

logger = logging.getLogger(__name__)


class StalenessLimit:
    """A timer that each answered poll of the primary restarts."""

    def __init__(self, at_most: timedelta | None, cache: TokenCache) -> None:
        """Without `at_most`, cached tokens are served until they expire."""
        self._at_most = at_most
        self._cache = cache
        self._timer: asyncio.TimerHandle | None = None

    def on_poll(self, began: float) -> None:
        """Restart: a poll that began at this event-loop time was answered."""
        if self._at_most is None:
            return
        loop = asyncio.get_running_loop()
        ends_at = began + self._at_most.total_seconds()
        self.close()
        self._timer = loop.call_at(ends_at, self._expire)
        if self._cache.is_suspended and loop.time() < ends_at:
            self._cache.is_suspended = False
            logger.warning(
                "PostgreSQL answers again: tokens are cached again",
                extra={"event": "token_cache_resumed"},
            )

    def _expire(self) -> None:
        if not self._cache.is_suspended:
            logger.warning(
                "PostgreSQL has not answered for BROKER_STALE_TOKENS_AT_MOST: the cached tokens "
                "are dropped, and none is cached until it answers",
                extra={"event": "token_cache_suspended", "tokens": len(self._cache)},
            )
        self._cache.is_suspended = True
        self._cache.invalidate_all()

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
