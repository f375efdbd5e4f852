"""Gives a caller a token: from the cache, from PostgreSQL, or from Google, in that order.

A token that was revoked, or whose grant changed while it was fetched, is never handed out. One that
is still valid is handed out whatever else is unavailable.
"""

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from broker.callers.limits import CallerLimits
from broker.callers.model import Caller
from broker.clock import Clock
from broker.crypto.sealing import UnsealingError
from broker.database.database import StorageUnavailable
from broker.database.shares import current_share
from broker.grants.model import to_scope_set
from broker.grants.rows import StoredGrant
from broker.grants.store import GrantStore
from broker.limits.concurrency import OverloadedError
from broker.scopes import missing
from broker.single_flight import SingleFlight
from broker.telemetry.logs import cut_user_id
from broker.tokens.cache.cached_token import CachedToken
from broker.tokens.cache.token_cache import LEAST_LIFE_SECONDS, TokenCache, Watch
from broker.tokens.grant_choice import GrantChoice, choose_grant, refused_by_policy
from broker.tokens.pending_hints import PendingConsentHints
from broker.tokens.refresh.google_refresh import Requester
from broker.tokens.refresh.lease_waits import LEASE
from broker.tokens.refresh.refresher import Refreshes
from broker.tokens.results import (
    READ_AGAIN,
    Denial,
    NotGranted,
    ReadAgain,
    RefreshResult,
    TokenResult,
    Unavailable,
    google_unavailable,
    storage_unavailable,
)
from broker.tokens.token_request import TokenRequest

logger = logging.getLogger(__name__)

_PATIENCE = timedelta(seconds=2)
"""How long a request waits for Google while an older token is still valid."""

_FRESH_ENOUGH = timedelta(seconds=1)
"""A token this young is not refreshed again: Google would return nothing better."""

_TIMEOUT = LEASE + timedelta(seconds=2)
"""How long a request waits until the grant stops changing, and for another replica's refresh: long
enough for a replica that died during its refresh to be replaced."""


@dataclass(frozen=True, slots=True)
class GrantsRead:
    """A user's live grants as they were read, with a watch that began before the reading."""

    grants: Sequence[StoredGrant]
    watch: Watch


class SharedGrantReads:
    """Reads a user's grants once for all requests of one caller that need them at the same time.

    When a token expires, a thousand requests may come together. If each read the grants, they would
    wait for each other in the pool until PostgreSQL seems unavailable. Callers share nothing: each
    reads with its own share of the connections.
    """

    def __init__(self, grants: GrantStore) -> None:
        self._grants = grants
        self._reads: SingleFlight[tuple[str, str], Sequence[StoredGrant]] = SingleFlight()
        self._watches: dict[tuple[str, str], Watch] = {}
        """Of the reads in progress."""

    def read(self, user_id: str, watch: Watch) -> Coroutine[Any, Any, Sequence[StoredGrant]]:
        """Return the user's live grants, to be awaited. Raises `StorageUnavailable`.

        If `watch` has changed by then, they may be outdated.
        """
        key = (current_share().name, user_id)
        reading = self._watches.get(key)
        if reading is not None and reading.changed:
            # The read in progress may have missed that change.
            self._reads.forget(key)
        return self._reads.do_inline(key, lambda: self._read(key, watch))

    async def _read(self, key: tuple[str, str], watch: Watch) -> Sequence[StoredGrant]:
        self._watches[key] = watch
        try:
            return await self._grants.find(key[1])
        finally:
            if self._watches.get(key) is watch:
                del self._watches[key]


class TokenDispenser:
    """The only way to a token."""

    def __init__(
        self,
        *,
        cache: TokenCache,
        grants: GrantStore,
        pending: PendingConsentHints,
        refresher: Refreshes,
        limits: CallerLimits,
        clock: Clock,
    ) -> None:
        self._cache = cache
        self._grants = grants
        self._reader = SharedGrantReads(grants)
        self._pending = pending
        self._refresher = refresher
        self._limits = limits
        self._clock = clock

    async def dispense(
        self,
        caller: Caller,
        request: TokenRequest,
        *,
        request_id: str | None = None,
        target: bytes | None = None,
    ) -> TokenResult:
        """Return a token or the refusal. The caller must be allowed to act for the user.

        `target` is the request's HTTP target, to be cached for the fast path.
        """
        answer = self.try_cached(caller, request)
        if answer is None:
            requester = Requester(caller.name, request_id)
            return await self.fetch(caller, request, requester, target=target)
        if target is not None and isinstance(answer, CachedToken):
            self._cache.put_answer(caller, request, answer, target=target)
        return answer

    def try_cached(self, caller: Caller, request: TokenRequest) -> TokenResult | None:
        """Return the answer if memory alone gives it."""
        refusal = refused_by_policy(caller, request)
        if refusal is not None:
            return refusal
        token = self._cache.answer_to(caller, request)
        if token is not None and self.seconds_left(token) >= max(
            LEAST_LIFE_SECONDS, request.min_ttl
        ):
            return token
        return None

    async def fetch(
        self,
        caller: Caller,
        request: TokenRequest,
        requester: Requester,
        *,
        seen: GrantsRead | None = None,
        target: bytes | None = None,
    ) -> TokenResult:
        """Return what `try_cached` cannot: a token from the grants (`seen`, if given) or Google."""
        try:
            return await self._fetch(caller, request, requester, seen, target)
        except StorageUnavailable as error:
            logger.warning(error.headline, extra={"event": error.event, "reason": str(error)})
            return self.without_storage(caller, request)
        except OverloadedError:
            return self._still_cached(caller, request) or self._limits.overloaded(caller)

    def without_storage(self, caller: Caller, request: TokenRequest) -> TokenResult:
        """Return the cached token with its remaining lifetime, or that storage is unavailable."""
        return self._still_cached(caller, request) or storage_unavailable()

    def _still_cached(self, caller: Caller, request: TokenRequest) -> CachedToken | None:
        # Found again: another request may have replaced the token meanwhile.
        token = self._cache.answer_to(caller, request)
        return token if token is not None and not self.is_expired(token) else None

    def seconds_left(self, token: CachedToken) -> float:
        """Return how long the token is still valid; negative once it has expired."""
        return token.expires_at - self._clock.epoch()

    def is_expired(self, token: CachedToken) -> bool:
        """True if the token is valid for too short a time to be handed out."""
        return self.seconds_left(token) < LEAST_LIFE_SECONDS

    async def _fetch(
        self,
        caller: Caller,
        request: TokenRequest,
        requester: Requester,
        seen: GrantsRead | None,
        target: bytes | None,
    ) -> TokenResult:
        """Answer from the grants; again if they change before the answer is complete."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        while (waited := loop.time() - began) < _TIMEOUT.total_seconds():
            with self._cache.watch(request.user_id) as watch:
                patience = _PATIENCE.total_seconds() - waited
                answer = await self._answer(caller, request, requester, seen, watch, patience)
                if not (watch.changed or isinstance(answer, ReadAgain)):
                    if isinstance(answer, CachedToken):
                        self._cache.put_answer(caller, request, answer, target=target)
                    return answer
            seen = None
        return google_unavailable("A refresh is taking too long.")

    async def _read(
        self, caller: Caller, request: TokenRequest, watch: Watch, seen: GrantsRead | None
    ) -> Sequence[StoredGrant]:
        if seen is not None and not seen.watch.changed:
            return seen.grants
        if not self._limits.database_requests.try_acquire(caller.name):
            await self._limits.database_requests.acquire(caller.name)
        try:
            return await self._reader.read(request.user_id, watch)
        finally:
            self._limits.database_requests.release(caller.name)

    async def _answer(
        self,
        caller: Caller,
        request: TokenRequest,
        requester: Requester,
        seen: GrantsRead | None,
        watch: Watch,
        patience: float,
    ) -> RefreshResult:
        grants = await self._read(caller, request, watch, seen)
        if watch.changed:
            return READ_AGAIN
        choice = choose_grant(grants, caller, request)
        if isinstance(choice, NotGranted):
            return await self._pending.refine(choice, grants, request)
        token = self._best_known(choice, watch)
        if token is not None and self._is_good(token, request.min_ttl):
            answer: RefreshResult = token
        else:
            answer = await self._refresh(choice, token, patience, requester)
        if isinstance(answer, CachedToken) and request.scopes is not None:
            # Google may leave out scopes that the user has withdrawn there.
            lacking = missing(request.scopes, answer.scopes)
            return NotGranted(Denial.SCOPE_NOT_GRANTED, lacking) if lacking else answer
        return answer

    def _best_known(self, choice: GrantChoice, watch: Watch) -> CachedToken | None:
        """Return the valid token, cached or stored, that expires last."""
        grant, scope_set = choice.stored.grant, to_scope_set(choice.scopes)
        token = self._cache.find_token(grant.user_id, grant, scope_set)
        sealed = choice.stored.sealed_access_tokens.get(scope_set)
        if sealed and (token is None or token.expires_at < sealed.expires_at.timestamp()):
            try:
                opened = self._grants.open_access_token(grant, scope_set, sealed)
            except UnsealingError:
                logger.exception(
                    "a stored access token does not open; a new one is fetched",
                    extra={
                        "event": "access_token_unreadable",
                        "user": cut_user_id(grant.user_id),
                    },
                )
            else:
                token = CachedToken(grant, opened)
                self._cache.put(grant.user_id, scope_set, token, watch)
        return token if token and not self.is_expired(token) else None

    def _is_good(self, token: CachedToken, min_ttl: int) -> bool:
        if self.seconds_left(token) >= min_ttl:
            return True
        return self._clock.epoch() - token.obtained_at < _FRESH_ENOUGH.total_seconds()

    async def _refresh(
        self, choice: GrantChoice, stale: CachedToken | None, patience: float, requester: Requester
    ) -> RefreshResult:
        """Return a new token; if there is none in time, the older one while it is valid."""
        if stale is None:
            return await self._refresher.refresh(choice.stored, choice.scopes, requester)
        if patience <= 0:
            return stale
        seconds = min(patience, self.seconds_left(stale) - LEAST_LIFE_SECONDS / 2)
        try:
            async with asyncio.timeout(seconds):
                # After a timeout the refresh goes on, and its token is cached.
                result = await self._refresher.refresh(choice.stored, choice.scopes, requester)
        except (TimeoutError, StorageUnavailable, OverloadedError):
            return stale
        return stale if isinstance(result, Unavailable) else result
