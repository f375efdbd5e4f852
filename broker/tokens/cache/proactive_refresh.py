"""Refreshes tokens in use before anybody has to wait for it; the others are left to expire.

Each replica looks after the tokens it hands out, at a moment of its own; the lease sees to it that
one of them asks Google, and the others find the new token in the table.
"""

import asyncio
import heapq
import logging
import math
import random

from broker.clock import Clock
from broker.database.database import StorageUnavailable
from broker.grants.model import GrantStatus
from broker.grants.store import GrantStore
from broker.tokens.cache.cached_token import HeldToken
from broker.tokens.cache.token_cache import HeldTokens
from broker.tokens.refresh.refresher import Behalf, LookAgain, Refresher

logger = logging.getLogger(__name__)

LOOK_SECONDS = 0.2
"""How often it is looked what is due."""

AT_ONCE = 16
"""Refreshes ahead under way at a time: they must not crowd out those that somebody waits for."""

_EARLIEST, _LATEST = 0.35, 0.2
"""Parts of its life that a token still has when it is refreshed; each at a random point between."""

_MOST = 0.8
"""However long the callers' `min_ttl`: so much of a token's life is used before it is replaced."""

_AGAIN_SECONDS = 1.0

_STEPS = 256
"""A moment is planned to within such a part of the time until then, so that many share one."""


class RefreshAhead:
    """A time table of the tokens held: what is due at the same moment stands together."""

    def __init__(
        self, *, held: HeldTokens, grants: GrantStore, refresher: Refresher, clock: Clock
    ) -> None:
        self._held = held
        self._grants = grants
        self._refresher = refresher
        self._clock = clock
        self._due: dict[float, list[HeldToken]] = {}
        self._moments: list[float] = []
        """A heap of those in `_due`."""
        self._running: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return sum(map(len, self._due.values()))

    def plan(self, token: HeldToken) -> None:
        """See to it that a token which was just held is replaced in time, if it is in use then."""
        self._put(_moment(token), token)

    def drop(self, token: HeldToken) -> None:
        """Nobody holds it any more: users who came once must not fill the table."""
        if token.due is not None:
            self._due[token.due].remove(token)
            token.due = None

    def drop_all(self) -> None:
        """Nothing is held any more: at once, for one by one would take long."""
        self._due.clear()
        self._moments.clear()

    def _put(self, moment: float, token: HeldToken) -> None:
        step = _step(moment - self._clock.epoch())
        moment = math.ceil(moment / step) * step
        together = self._due.get(moment)
        if together is None:
            together = self._due[moment] = []
            heapq.heappush(self._moments, moment)
        else:
            # The one number that the table has: held once.
            moment = together[0].due or moment if together else moment
        together.append(token)
        token.due = moment

    def _next_due(self, now: float) -> HeldToken | None:
        """The next of those whose moment has come, taken out of the table."""
        while self._moments and self._moments[0] <= now:
            together = self._due[self._moments[0]]
            if together:
                token = together.pop()
                token.due = None
                return token
            del self._due[heapq.heappop(self._moments)]
        return None

    async def round(self) -> None:
        """Begin the refreshes that are due, a bounded number at a time."""
        now = self._clock.epoch()
        while len(self._running) < AT_ONCE and (token := self._next_due(now)) is not None:
            if token.expires_at <= now:
                continue
            if not token.used_again:
                # Perhaps it came late in its life, and its callers are only beginning to ask.
                self._put(now + _look_again_in(token.expires_at - now), token)
                continue
            moment = _moment(token)
            if moment > now:
                # Planned before it was known how long its callers want it to live.
                self._put(moment, token)
                continue
            task = asyncio.create_task(self._replace(token))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def aclose(self) -> None:
        """Wait for nobody: what is under way at Google goes on in the refresher."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _replace(self, token: HeldToken) -> None:
        try:
            is_replaced = await self._fetch(token)
        except (LookAgain, StorageUnavailable):
            is_replaced = False
        except Exception:
            logger.exception("a refresh ahead failed")
            return
        if not is_replaced and token.alive and token.expires_at > self._clock.epoch():
            again = self._clock.epoch() + _AGAIN_SECONDS * random.uniform(0.8, 1.6)  # noqa: S311
            self._put(again, token)

    async def _fetch(self, token: HeldToken) -> bool:
        user_id, held_under = token.user_id, token.held_under
        watch = self._held.watch(user_id)
        try:
            for stored in await self._grants.find(user_id):
                grant = stored.grant
                if grant.id.bytes != token.grant_bytes or grant.status is not GrantStatus.ACTIVE:
                    continue
                sealed = stored.sealed_access_tokens.get(held_under)
                if sealed is not None and sealed.expires_at.timestamp() > token.expires_at + 1:
                    opened = self._grants.open_access_token(stored.grant, held_under, sealed)
                    self._held.keep(user_id, held_under, HeldToken(stored.grant, opened), watch)
                    return True
                scopes = tuple(held_under.split(" "))
                result = await self._refresher.refresh(stored, scopes, Behalf())
                return isinstance(result, HeldToken)
            return True
        finally:
            self._held.unwatch(user_id, watch)


def _step(left: float) -> float:
    """Seconds between two moments that may be planned, for what is due when so much is `left`."""
    if left <= LOOK_SECONDS * _STEPS:
        return LOOK_SECONDS
    # A power of two: the moments planned earlier are then the same ones.
    return float(2.0 ** math.floor(math.log2(left / _STEPS)))


def _look_again_in(left: float) -> float:
    """Seconds until an idle token is looked at again: seldom at first, often towards its end."""
    return max(left / 4, LOOK_SECONDS)


def _moment(token: HeldToken) -> float:
    """When to replace it: a random while before it expires, or before its callers find it short."""
    life = token.expires_at - token.obtained_at
    part = random.uniform(_LATEST, _EARLIEST)  # noqa: S311  (jitter, not a secret)
    left = min(max(life * part, token.asked_ttl + life * part / 2), life * _MOST)
    return token.expires_at - left
