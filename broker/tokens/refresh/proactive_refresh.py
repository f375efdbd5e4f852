"""Proactive refresh: tokens in use are refreshed before a request has to wait; others expire.

Each replica refreshes the tokens that it hands out, at a random time; by the lease one of them
calls Google, and the others find the new token in PostgreSQL.
"""

import asyncio
import heapq
import logging
import math
import random
from datetime import timedelta

from broker.backoff import Jitter, jittered
from broker.clock import Clock
from broker.database.database import StorageUnavailable
from broker.grants.model import GrantStatus
from broker.grants.store import GrantStore
from broker.tokens.cache.cached_token import CachedToken
from broker.tokens.cache.token_cache import TokenCache
from broker.tokens.refresh.google_refresh import Requester
from broker.tokens.refresh.refresher import Refresher

logger = logging.getLogger(__name__)

CHECK_SECONDS = 0.2
"""How often the schedule is checked."""

AT_ONCE = 16
"""Proactive refreshes at a time: they must leave room for those that requests wait for."""

_EARLIEST, _LATEST = 0.35, 0.2
"""Parts of its lifetime that a token still has when it is refreshed: a random point between."""

_MOST = 0.8
"""However long the callers' `min_ttl`: a token is used for this part of its lifetime at least."""

_RETRY = timedelta(seconds=1)
_RETRY_JITTER: Jitter = (0.8, 1.6)

_STEPS = 256
"""Due times are rounded up by at most 1/256 of the remaining time, so that tokens share them."""


class RefreshSchedule:
    """When each cached token is due for a refresh; tokens due at the same time share one bucket."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._buckets: dict[float, list[CachedToken]] = {}
        self._times: list[float] = []
        """A heap of the keys of `_buckets`."""

    def __len__(self) -> int:
        return sum(map(len, self._buckets.values()))

    def add(self, token: CachedToken) -> None:
        """Schedule a token that was just cached."""
        self.put(_due_time(token), token)

    def remove(self, token: CachedToken) -> None:
        """Remove a token that left the cache, so that users who came once do not fill the schedule.

        Does nothing if it is not scheduled.
        """
        if token.due is not None:
            self._buckets[token.due].remove(token)
            token.due = None

    def clear(self) -> None:
        """Remove all tokens in constant time: all have left the cache."""
        self._buckets.clear()
        self._times.clear()

    def put(self, due: float, token: CachedToken) -> None:
        """Schedule a token for this time, in seconds since 1970."""
        step = _step(due - self._clock.epoch())
        due = math.ceil(due / step) * step
        bucket = self._buckets.get(due)
        if bucket is None:
            bucket = self._buckets[due] = []
            heapq.heappush(self._times, due)
        else:
            # The bucket's own float object: it saves 24 bytes a token.
            due = bucket[0].due or due if bucket else due
        bucket.append(token)
        token.due = due

    def pop_due(self, now: float) -> CachedToken | None:
        """Remove and return a token that is due."""
        while self._times and self._times[0] <= now:
            bucket = self._buckets[self._times[0]]
            if bucket:
                token = bucket.pop()
                token.due = None
                return token
            del self._buckets[heapq.heappop(self._times)]
        return None


class ProactiveRefresh:
    """The periodic job that refreshes due tokens, if they are in use."""

    def __init__(
        self,
        *,
        schedule: RefreshSchedule,
        cache: TokenCache,
        grants: GrantStore,
        refresher: Refresher,
        clock: Clock,
    ) -> None:
        self._schedule = schedule
        self._cache = cache
        self._grants = grants
        self._refresher = refresher
        self._clock = clock
        self._running: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Start the refreshes that are due, a bounded number at a time."""
        now = self._clock.epoch()
        while len(self._running) < AT_ONCE and (token := self._schedule.pop_due(now)) is not None:
            if token.expires_at <= now:
                continue
            if not token.used_again:
                # It may have been cached late in its life, and its callers are about to request it.
                self._schedule.put(now + _recheck_in(token.expires_at - now), token)
                continue
            due = _due_time(token)
            if due > now:
                # It was scheduled before the `min_ttl` of its callers was known.
                self._schedule.put(due, token)
                continue
            task = asyncio.create_task(self._replace(token))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def aclose(self) -> None:
        """Cancel the waits; refreshes at Google go on in the refresher."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _replace(self, token: CachedToken) -> None:
        try:
            is_replaced = await self._fetch(token)
        except StorageUnavailable:
            is_replaced = False
        except Exception:
            logger.exception(
                "a proactive refresh failed unexpectedly",
                extra={"event": "proactive_refresh_failed"},
            )
            return
        if not is_replaced and token.alive and token.expires_at > self._clock.epoch():
            pause = jittered(_RETRY, _RETRY_JITTER).total_seconds()
            self._schedule.put(self._clock.epoch() + pause, token)

    async def _fetch(self, token: CachedToken) -> bool:
        """Cache the next token, stored or new; True if there is nothing left to do."""
        user_id, scope_set = token.user_id, token.scope_set
        with self._cache.watch(user_id) as watch:
            for stored in await self._grants.find(user_id):
                grant = stored.grant
                if grant.id.bytes != token.grant_bytes or grant.status is not GrantStatus.ACTIVE:
                    continue
                sealed = stored.sealed_access_tokens.get(scope_set)
                if sealed is not None and sealed.expires_at.timestamp() > token.expires_at + 1:
                    opened = self._grants.open_access_token(stored.grant, scope_set, sealed)
                    self._cache.put(user_id, scope_set, CachedToken(stored.grant, opened), watch)
                    return True
                scopes = tuple(scope_set.split(" "))
                result = await self._refresher.refresh(stored, scopes, Requester())
                return isinstance(result, CachedToken)
            return True


def _step(left: float) -> float:
    """Return the seconds between two buckets, for tokens that are due in `left` seconds."""
    if left <= CHECK_SECONDS * _STEPS:
        return CHECK_SECONDS
    # A power of two: tokens that were scheduled earlier are then in the same buckets.
    return float(2.0 ** math.floor(math.log2(left / _STEPS)))


def _recheck_in(left: float) -> float:
    """Return the seconds until an idle token is checked again: rarely, and often at its end."""
    return max(left / 4, CHECK_SECONDS)


def _due_time(token: CachedToken) -> float:
    """Return when to replace a token: a random time before it expires, or before it has less time
    left than its callers require.
    """
    life = token.expires_at - token.obtained_at
    part = random.uniform(_LATEST, _EARLIEST)  # noqa: S311  (jitter, not a secret)
    left = min(max(life * part, token.longest_min_ttl + life * part / 2), life * _MOST)
    return token.expires_at - left
