"""Rate and concurrency limits of each caller; beyond them, only that caller's requests are refused.

Everything is counted per process: with three replicas, a caller has three times as much.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final

from broker.callers.model import Caller
from broker.callers.refusals import AccessRefused, RefusalReason
from broker.database.shares import CALLER_CONNECTIONS
from broker.limits.concurrency import ConcurrencyLimit, OverloadedError
from broker.limits.loop_fairness import LoopFairness
from broker.telemetry.metrics import Metrics

CONCURRENT_DATABASE_REQUESTS = CALLER_CONNECTIONS
"""Requests of one caller that use the database."""

CONCURRENT_DATABASE_REQUESTS_PER_USER = 2
"""Of those, requests of one caller about one user or one link: a user whose row is locked delays
none of the caller's other users."""

CONCURRENT_REFRESHES = 48
"""Of one caller, for single requests, out of all refreshes at Google."""

CONCURRENT_BATCH_REFRESHES = 48
"""The same for all batches of a caller: they delay none of its single requests."""

CONCURRENT_REFRESHES_PER_GRANT = 4
"""Of each of those, for one grant: an account that is slow at Google delays no other one."""

CONCURRENT_BATCHES = 8
"""Of one caller, from before a body is read until its response has been read."""

BATCH_PORTIONS_PER_ITERATION = 1
"""Of all batches, per event-loop iteration; callers round-robin."""

QUEUED_DATABASE_REQUESTS = 1000
QUEUED_REFRESHES = 4000
QUEUED_BATCHES = 100

READ_TIMEOUT_SECONDS = 5.0
REFRESH_TIMEOUT_SECONDS = 15.0

REFUSAL_DELAY_SECONDS = 0.5
"""Delay of a refusal, so that a caller that retries immediately gets no more processor time."""

NO_CALLER: Final = "-"
"""The metrics' label for requests without a known caller; no caller can have this name."""

_OVERLOAD_RETRY_SECONDS = 1
_LOG_INTERVAL_SECONDS = 60.0

logger = logging.getLogger(__name__)


class CallerLimits:
    """The limits of all callers, by name."""

    def __init__(self, metrics: Metrics, clock: Callable[[], float] = time.perf_counter) -> None:
        """`clock` returns monotonic seconds."""
        self._refused = metrics.rate_limited
        self._clock = clock
        self._logged_at: dict[str, float] = {}
        self.refreshes = _refreshes(CONCURRENT_REFRESHES)
        self.batch_refreshes = _refreshes(CONCURRENT_BATCH_REFRESHES)
        self.database_requests = _with_queue(CONCURRENT_DATABASE_REQUESTS, QUEUED_DATABASE_REQUESTS)
        self._database_requests_of_users = _with_queue(
            CONCURRENT_DATABASE_REQUESTS_PER_USER, QUEUED_DATABASE_REQUESTS
        )
        self._batches = _with_queue(CONCURRENT_BATCHES, QUEUED_BATCHES)
        self.portions = LoopFairness(per_iteration=BATCH_PORTIONS_PER_ITERATION)

    async def admit(self, caller: Caller) -> None:
        """Count one request. Raises `AccessRefused`, after a delay, over the rate limit."""
        if caller.gcra is not None:
            await self._refuse_over_rate(caller, caller.gcra.admit(self._clock()))

    async def charge(self, caller: Caller, count: int) -> None:
        """Count `count` more for an admitted request. Raises `AccessRefused`."""
        if caller.gcra is not None and count > 0:
            await self._refuse_over_rate(caller, caller.gcra.charge(self._clock(), count))

    async def acquire_batch(self, caller: Caller) -> Callable[[], None]:
        """Acquire one of the caller's places for batches; call the result to release it.

        Raises `AccessRefused`.
        """
        return await self._acquire(self._batches, caller, caller.name)

    async def acquire_for_request(self, caller: Caller, about: str) -> Callable[[], None]:
        """Acquire a place at the database for a whole request; call the result to release it.

        `about` is the user or the link of the request. Raises `AccessRefused`.
        """
        release_user = await self._acquire(
            self._database_requests_of_users, caller, f"{caller.name} {about}"
        )
        try:
            release_caller = await self._acquire(self.database_requests, caller, caller.name)
        except BaseException:
            release_user()
            raise

        def release() -> None:
            release_caller()
            release_user()

        return release

    def overloaded(self, caller: Caller) -> AccessRefused:
        """Record that a caller exceeded a concurrency limit, and return the refusal."""
        self._record(caller, "overload")
        return AccessRefused(
            RefusalReason.CONCURRENCY_LIMIT, retry_after_seconds=_OVERLOAD_RETRY_SECONDS
        )

    async def _acquire(
        self, limit: ConcurrencyLimit, caller: Caller, key: str
    ) -> Callable[[], None]:
        try:
            await limit.acquire(key)
        except OverloadedError:
            refused = self.overloaded(caller)
            await asyncio.sleep(REFUSAL_DELAY_SECONDS)
            raise refused from None
        return lambda: limit.release(key)

    async def _refuse_over_rate(self, caller: Caller, wait: float) -> None:
        if wait > 0:
            self._record(caller, "rate")
            await asyncio.sleep(REFUSAL_DELAY_SECONDS)
            raise AccessRefused(RefusalReason.RATE_LIMIT, retry_after_seconds=wait)

    def _record(self, caller: Caller, limit: str) -> None:
        """Count the refusal; log one a minute for each caller."""
        self._refused.labels(caller.name, limit).inc()
        now = self._clock()
        if now - self._logged_at.get(caller.name, float("-inf")) >= _LOG_INTERVAL_SECONDS:
            self._logged_at[caller.name] = now
            logger.warning(
                "a caller exceeds a limit",
                extra={"event": "caller_limit_exceeded", "caller": caller.name, "limit": limit},
            )


def _with_queue(limit: int, queue: int) -> ConcurrencyLimit:
    return ConcurrencyLimit(limit=limit, queue=queue, timeout_seconds=READ_TIMEOUT_SECONDS)


def _refreshes(limit: int) -> ConcurrencyLimit:
    return ConcurrencyLimit(
        limit=limit, queue=QUEUED_REFRESHES, timeout_seconds=REFRESH_TIMEOUT_SECONDS
    )
