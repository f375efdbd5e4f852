"""Hands a token to a caller: from memory, from the table, or fresh from Google, in that order.

A token that was revoked, or whose grant changed while it was being fetched, is never handed out;
one that still lives is, whatever else is down.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from broker.callers.limits import CallerLimits
from broker.callers.model import Caller
from broker.clock import Clock
from broker.crypto.sealing import UnsealingError
from broker.database.database import StorageUnavailable
from broker.google.scopes import missing
from broker.grants.model import scope_set
from broker.grants.rows import StoredGrant
from broker.grants.store import GrantStore
from broker.limits.concurrency import OverloadedError
from broker.telemetry.logs import cut_user_id
from broker.tokens.cache.cached_token import HeldToken
from broker.tokens.cache.shared_reads import SharedLooks
from broker.tokens.cache.token_cache import LAST_SECOND, HeldTokens, TokenRequest, Watch
from broker.tokens.choice import Choice, choose, refused_by_policy
from broker.tokens.pending_hint import UnconfirmedConsents
from broker.tokens.refresh.refresher import LEASE, Behalf, LookAgain, Refreshes, RefreshResult
from broker.web.problems import (
    Problem,
    google_unavailable,
    scope_not_granted,
    storage_unavailable,
)

logger = logging.getLogger(__name__)

_PATIENCE = timedelta(seconds=2)
"""How long a caller waits for Google while a token that still lives could be had at once."""

_FRESH_ENOUGH = timedelta(seconds=1)
"""A token this young is not refreshed again: Google would give nothing better."""

_LOOKING = LEASE + timedelta(seconds=2)
"""How long a caller waits for the grant to keep still, and for another replica's refresh: long
enough for a replica that died while refreshing to be replaced."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """A user's live grants as they were read, with a watch that was begun before that."""

    grants: Sequence[StoredGrant]
    watch: Watch


class TokenDispenser:
    """The one way to a token."""

    def __init__(
        self,
        *,
        held: HeldTokens,
        grants: GrantStore,
        unconfirmed: UnconfirmedConsents,
        refresher: Refreshes,
        limits: CallerLimits,
        clock: Clock,
    ) -> None:
        self._limits = limits
        self._held = held
        self._unconfirmed = unconfirmed
        self._grants = grants
        self._looks = SharedLooks(grants)
        self._refresher = refresher
        self._clock = clock

    async def dispense(
        self, caller: Caller, request: TokenRequest, *, request_id: str | None = None
    ) -> HeldToken | Problem:
        """The token, or the refusal. The caller may act for the user: that is already decided."""
        answer = self.at_once(caller, request)
        if answer is not None:
            return answer
        return await self.fetch(caller, request, Behalf(caller.name, request_id))

    def at_once(self, caller: Caller, request: TokenRequest) -> HeldToken | Problem | None:
        """What can be answered from memory alone."""
        refusal = refused_by_policy(caller, request)
        if refusal is not None:
            return refusal
        held = self._held.answer(caller, request)
        if held is not None and self.seconds_left(held) >= max(LAST_SECOND, request.min_ttl):
            return held
        return None

    async def fetch(
        self,
        caller: Caller,
        request: TokenRequest,
        behalf: Behalf,
        seen: Sighting | None = None,
    ) -> HeldToken | Problem:
        """What can't be answered at once: from the table, as `seen` if so, or from Google."""
        try:
            return await self._fetch(caller, request, behalf, seen)
        except StorageUnavailable as error:
            logger.warning(error.headline, extra={"reason": str(error)})
            return self.without_storage(caller, request)
        except OverloadedError:
            return self._held_still(caller, request) or self._limits.overloaded(caller)

    def without_storage(self, caller: Caller, request: TokenRequest) -> HeldToken | Problem:
        """While storage is away, the token that is held as the answer, with what is left of it."""
        return self._held_still(caller, request) or storage_unavailable()

    def _held_still(self, caller: Caller, request: TokenRequest) -> HeldToken | None:
        """Looked up now: the one that was held a moment ago may have made room for a newer one."""
        held = self._held.answer(caller, request)
        return held if held is not None and not self.is_over(held) else None

    def seconds_left(self, token: HeldToken) -> float:
        """How long the token still lives; negative when it no longer does."""
        return token.expires_at - self._clock.epoch()

    def is_over(self, token: HeldToken) -> bool:
        """Whether it lives too short to be handed out."""
        return self.seconds_left(token) < LAST_SECOND

    async def _fetch(
        self, caller: Caller, request: TokenRequest, behalf: Behalf, seen: Sighting | None
    ) -> HeldToken | Problem:
        """Look at the grants until they keep still for as long as it takes."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        while (waited := loop.time() - began) < _LOOKING.total_seconds():
            watch = self._held.watch(request.user_id)
            try:
                stored = seen.grants if seen is not None and not seen.watch.changed else None
                seen = None
                if stored is None:
                    if not self._limits.reads.take_now(caller.name):
                        await self._limits.reads.take(caller.name)
                    try:
                        stored = await self._looks.find(request.user_id, watch)
                    finally:
                        self._limits.reads.give_back(caller.name)
                choice = choose(stored, caller, request)
                if isinstance(choice, Problem):
                    choice = await self._unconfirmed.instead_of(choice, stored, request)
                patience = _PATIENCE.total_seconds() - waited
                answer = await self._answer(choice, request, watch, patience, behalf)
                if not watch.changed:
                    if isinstance(answer, HeldToken):
                        self._held.keep_answer(caller, request, answer)
                    return answer
            except LookAgain:
                continue
            finally:
                self._held.unwatch(request.user_id, watch)
        return google_unavailable(1, "A refresh is taking too long.")

    async def _answer(
        self,
        choice: Choice | Problem,
        request: TokenRequest,
        watch: Watch,
        patience: float,
        behalf: Behalf,
    ) -> HeldToken | Problem:
        if isinstance(choice, Problem):
            return choice
        known = self._best_known(choice, watch)
        if known is not None and self._is_good(known, request.min_ttl):
            answer: HeldToken | Problem = known
        else:
            answer = await self._refreshed(choice, known, patience, behalf)
        if isinstance(answer, HeldToken) and request.scopes is not None:
            # Google may have left out what the user has since withdrawn there.
            lacking = missing(request.scopes, answer.scopes)
            return scope_not_granted(lacking) if lacking else answer
        return answer

    def _best_known(self, choice: Choice, watch: Watch) -> HeldToken | None:
        """The token in memory or in the table that lives longer, if any still does."""
        grant, held_under = choice.stored.grant, scope_set(choice.scopes)
        held = self._held.token(grant.user_id, grant, held_under)
        sealed = choice.stored.sealed_access_tokens.get(held_under)
        if sealed and (held is None or held.expires_at < sealed.expires_at.timestamp()):
            try:
                opened = self._grants.open_access_token(grant, held_under, sealed)
            except UnsealingError:
                logger.exception(
                    "a stored token does not open; a fresh one is fetched",
                    extra={"user": cut_user_id(grant.user_id)},
                )
            else:
                held = HeldToken(grant, opened)
                self._held.keep(grant.user_id, held_under, held, watch)
        return held if held and self.seconds_left(held) >= LAST_SECOND else None

    def _is_good(self, token: HeldToken, min_ttl: int) -> bool:
        if self.seconds_left(token) >= min_ttl:
            return True
        return self._clock.epoch() - token.obtained_at < _FRESH_ENOUGH.total_seconds()

    async def _refreshed(
        self, choice: Choice, stale: HeldToken | None, patience: float, behalf: Behalf
    ) -> HeldToken | Problem:
        """A fresh token; when that can't be had soon, the stale one with what is left of it."""
        if stale is None:
            return await self._refresher.refresh(choice.stored, choice.scopes, behalf)
        if patience <= 0:
            return stale
        try:
            result = await self._refresh_patiently(choice, stale, patience, behalf)
        except (TimeoutError, StorageUnavailable, OverloadedError):
            return stale
        return stale if isinstance(result, Problem) and result.status == 503 else result

    async def _refresh_patiently(
        self, choice: Choice, stale: HeldToken, patience: float, behalf: Behalf
    ) -> RefreshResult:
        """Raises `TimeoutError`; the refresh goes on, and what it brings is held."""
        async with asyncio.timeout(min(patience, self.seconds_left(stale) - LAST_SECOND / 2)):
            return await self._refresher.refresh(choice.stored, choice.scopes, behalf)
