"""Refreshes tokens in use before anybody has to wait for it; the others are left to expire.

Each replica looks after the tokens it hands out, at a moment of its own; the lease sees to it that
one of them asks Google, and the others find the new token in the table.
"""

import asyncio
import heapq
import itertools
import logging
import random

from broker.clock import Clock
from broker.database.database import StorageUnavailable
from broker.grants.store import GrantStore
from broker.tokens.held import HeldToken, HeldTokens
from broker.tokens.refresher import Behalf, LookAgain, Refresher

logger = logging.getLogger(__name__)

LOOK_SECONDS = 0.2
"""How often it is looked what is due."""

_AT_ONCE = 16
"""Refreshes ahead under way at a time: they must not crowd out those that somebody waits for."""

_EARLIEST, _LATEST = 0.35, 0.2
"""Parts of its life that a token still has when it is refreshed; each at a random point between."""

_MOST = 0.8
"""However long the callers' `min_ttl`: so much of a token's life is used before it is replaced."""

_AGAIN_SECONDS = 1.0

_CLEAR_AT = 1_000
"""So many entries are looked through for dead ones; then not before they have doubled."""


class RefreshAhead:
    """A time table of the tokens held."""

    def __init__(
        self, *, held: HeldTokens, grants: GrantStore, refresher: Refresher, clock: Clock
    ) -> None:
        self._held = held
        self._grants = grants
        self._refresher = refresher
        self._clock = clock
        self._due: list[tuple[float, int, str, str, HeldToken]] = []
        self._clear_at = _CLEAR_AT
        self._numbers = itertools.count()
        self._running: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._due)

    def plan(self, user_id: str, held_under: str, token: HeldToken) -> None:
        """See to it that a token which was just held is replaced in time, if it is in use then."""
        if len(self._due) >= self._clear_at:
            self._clear()
        self._put(_moment(token), user_id, held_under, token)

    def _clear(self) -> None:
        """Drop what nobody holds any more, or users who came once would fill the table."""
        self._due = [due for due in self._due if due[-1].alive]
        heapq.heapify(self._due)
        self._clear_at = max(_CLEAR_AT, 2 * len(self._due))

    def _put(self, moment: float, user_id: str, held_under: str, token: HeldToken) -> None:
        heapq.heappush(self._due, (moment, next(self._numbers), user_id, held_under, token))

    async def round(self) -> None:
        """Begin the refreshes that are due, a bounded number at a time."""
        now = self._clock.epoch()
        while self._due and self._due[0][0] <= now and len(self._running) < _AT_ONCE:
            _, _, user_id, held_under, token = heapq.heappop(self._due)
            if not token.alive or token.expires_at <= now:
                continue
            if not token.used_again:
                # Perhaps it came late in its life, and its callers are only beginning to ask.
                self._put(now + _look_again_in(token.expires_at - now), user_id, held_under, token)
                continue
            moment = _moment(token)
            if moment > now:
                # Planned before it was known how long its callers want it to live.
                self._put(moment, user_id, held_under, token)
                continue
            task = asyncio.create_task(self._replace(user_id, held_under, token))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def aclose(self) -> None:
        """Wait for nobody: what is under way at Google goes on in the refresher."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _replace(self, user_id: str, held_under: str, token: HeldToken) -> None:
        try:
            is_replaced = await self._fetch(user_id, held_under, token)
        except (LookAgain, StorageUnavailable):
            is_replaced = False
        except Exception:
            logger.exception("a refresh ahead failed")
            return
        if not is_replaced and token.alive and token.expires_at > self._clock.epoch():
            again = self._clock.epoch() + _AGAIN_SECONDS * random.uniform(0.8, 1.6)  # noqa: S311
            self._put(again, user_id, held_under, token)

    async def _fetch(self, user_id: str, held_under: str, token: HeldToken) -> bool:
        watch = self._held.watch(user_id)
        try:
            for stored in await self._grants.find(user_id):
                if stored.grant.id != token.grant_id:
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


def _look_again_in(left: float) -> float:
    """Seconds until an idle token is looked at again: seldom at first, often towards its end."""
    return max(left / 4, LOOK_SECONDS)


def _moment(token: HeldToken) -> float:
    """When to replace it: a random while before it expires, or before its callers find it short."""
    life = token.expires_at - token.obtained_at
    part = random.uniform(_LATEST, _EARLIEST)  # noqa: S311  (jitter, not a secret)
    left = min(max(life * part, token.asked_ttl + life * part / 2), life * _MOST)
    return token.expires_at - left
