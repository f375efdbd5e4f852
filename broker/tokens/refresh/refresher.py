"""Refreshes access tokens: one refresh at a time for each grant and scope set, among all replicas
and callers, by a lease in PostgreSQL; and a bounded number of refreshes per caller.
"""

import asyncio
from typing import Protocol
from uuid import UUID

from broker.callers.limits import (
    CONCURRENT_REFRESHES_PER_GRANT,
    QUEUED_REFRESHES,
    REFRESH_TIMEOUT_SECONDS,
)
from broker.database.database import StorageBusy, StorageUnavailable
from broker.grants.model import to_scope_set
from broker.grants.refresh_lease import Lease
from broker.grants.rows import StoredGrant
from broker.grants.store import GrantStore
from broker.limits.concurrency import ConcurrencyLimit
from broker.single_flight import SingleFlight
from broker.tokens.cache.cached_token import CachedToken
from broker.tokens.cache.token_cache import TokenCache
from broker.tokens.refresh.google_calls import RefreshCalls
from broker.tokens.refresh.google_refresh import GoogleRefresh, Refresh, Requester
from broker.tokens.refresh.lease_waits import ReplicaLeases, refusal_of
from broker.tokens.refresh.write_behind import is_unchanged
from broker.tokens.results import READ_AGAIN, ReadAgain, RefreshResult

_STOP_SECONDS = 10.0


class Refreshes(Protocol):
    """The `Refresher`, or what stands in front of it."""

    async def refresh(
        self, stored: StoredGrant, scopes: tuple[str, ...], requester: Requester
    ) -> RefreshResult:
        """Return a token narrowed to `scopes`, or why there is none."""
        ...


class Refresher:
    """Refreshes one grant and scope set at a time, if no other replica does."""

    def __init__(
        self,
        *,
        grants: GrantStore,
        cache: TokenCache,
        leases: ReplicaLeases,
        calls: RefreshCalls,
        google: GoogleRefresh,
    ) -> None:
        self._grants = grants
        self._cache = cache
        self._leases = leases
        self._calls = calls
        self._google = google
        self._running: set[asyncio.Task[RefreshResult]] = set()

    async def refresh(
        self, stored: StoredGrant, scopes: tuple[str, ...], requester: Requester
    ) -> RefreshResult:
        """Return a token narrowed to `scopes`, which is cached, or why there is none.

        The refresh goes on if the caller is cancelled. Returns `READ_AGAIN` also when the
        refresh of another request has ended: requests take turns by the lease, within one replica
        too. If they shared one refresh, they would wait for the database connections of the caller
        that started it. Raises `StorageUnavailable`.
        """
        refresh = Refresh(stored, scopes, requester)
        refusal = self._calls.refusal(refresh.key)
        if refusal is not None:
            return refusal
        task = asyncio.create_task(self._refresh_and_cache(refresh))
        self._running.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    @property
    def in_flight(self) -> int:
        """Refreshes that have started and not ended: at Google, waiting for a lease, or saving."""
        return len(self._running)

    def _ended(self, task: asyncio.Task[RefreshResult]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            # Retrieved, or asyncio would log an exception that no request waits for.
            task.exception()

    async def aclose(self) -> None:
        """Wait until the refreshes in progress have ended: a rotated token must not be lost."""
        if self._running:
            await asyncio.wait(self._running, timeout=_STOP_SECONDS)

    async def _refresh_and_cache(self, refresh: Refresh) -> RefreshResult:
        """Cache the new token even if no request waits for it, unless the grant has changed."""
        user_id = refresh.grant.user_id
        with self._cache.watch(user_id) as watch:
            result = await self._refresh_in_turn(refresh)
            if isinstance(result, CachedToken):
                self._cache.put(user_id, refresh.scope_set, result, watch)
            return result

    async def _refresh_in_turn(self, refresh: Refresh) -> RefreshResult:
        """Call Google if this refresh gets the lease; else wait for the holder."""
        try:
            lease = await self._leases.acquire(refresh.key)
        except StorageBusy:
            # PostgreSQL is available, and other replicas use leases: this one must, too.
            raise
        except StorageUnavailable:
            # No replica can get a lease, nor can a grant be revoked: each refreshes for itself.
            return await self._refresh(refresh, None)
        if isinstance(lease, Lease):
            return await self._refresh_unless_done(refresh, lease)
        refusal = refusal_of(lease, refresh.scopes)
        if refusal is not None:
            return refusal
        await self._leases.wait_for_other_replica(refresh.key, lease)
        return READ_AGAIN

    async def _refresh_unless_done(self, refresh: Refresh, lease: Lease) -> RefreshResult:
        """Read the grant again: it may have been refreshed between its reading and the lease."""
        scope_set = refresh.scope_set
        known = refresh.stored.sealed_access_tokens.get(scope_set)
        try:
            grants = await self._grants.find(refresh.grant.user_id)
        except StorageUnavailable:
            # One lost connection must not make the others wait until the lease expires.
            await self._leases.release(lease)
            raise
        for now in grants:
            if is_unchanged(now.grant, refresh.grant):
                newer = now.sealed_access_tokens.get(scope_set)
                if newer is not None and (known is None or newer.expires_at > known.expires_at):
                    break
                return await self._refresh(refresh, lease)
        await self._leases.release(lease)
        return READ_AGAIN

    async def _refresh(self, refresh: Refresh, lease: Lease | None) -> RefreshResult:
        try:
            result = await self._google.run(refresh, lease)
        except StorageUnavailable:
            # Google has answered: the others need not wait until the lease expires.
            await self._leases.release(lease)
            raise
        if isinstance(result, ReadAgain):
            await self._leases.release(lease)
        elif not isinstance(result, CachedToken):
            pause = self._calls.pause_left(refresh.key)
            await self._leases.release(lease, refusal=result, pause=pause)
        return result


_Key = tuple[str, UUID, str]


class BoundedRefreshes:
    """One place in the limit for all requests of one caller that need the same refresh.

    It is taken until the refresh has ended, even if no request waits for it any more.
    """

    def __init__(self, refresher: Refreshes, limit: ConcurrencyLimit) -> None:
        """The keys of `limit` are callers."""
        self._refresher = refresher
        self._limit = limit
        self._limit_of_grants = ConcurrencyLimit(
            limit=CONCURRENT_REFRESHES_PER_GRANT,
            queue=QUEUED_REFRESHES,
            timeout_seconds=REFRESH_TIMEOUT_SECONDS,
        )
        self._refreshes: SingleFlight[_Key, RefreshResult] = SingleFlight()

    async def refresh(
        self, stored: StoredGrant, scopes: tuple[str, ...], requester: Requester
    ) -> RefreshResult:
        """Refresh as the refresher does, within the limits. Raises `OverloadedError`, too."""
        key = (requester.caller or "", stored.grant.id, to_scope_set(scopes))
        return await self._refreshes.do(key, lambda: self._bounded(stored, scopes, requester))

    async def _bounded(
        self, stored: StoredGrant, scopes: tuple[str, ...], requester: Requester
    ) -> RefreshResult:
        caller = requester.caller or ""
        grant_key = f"{caller} {stored.grant.id}"
        # First, so that refreshes that wait for a slow account take none of the caller's places.
        await self._limit_of_grants.acquire(grant_key)
        try:
            await self._limit.acquire(caller)
            try:
                return await self._refresher.refresh(stored, scopes, requester)
            finally:
                self._limit.release(caller)
        finally:
            self._limit_of_grants.release(grant_key)
