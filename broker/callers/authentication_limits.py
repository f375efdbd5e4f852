"""Limits on authentication, per client address: failures, JWTs to verify, forms being read.

Only failures count. From the same address a valid key is accepted immediately, and a valid JWT
a little later: many clients may share one address.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from broker.callers.limits import NO_CALLER, REFUSAL_DELAY_SECONDS
from broker.callers.refusals import AccessRefused, RefusalReason
from broker.limits.concurrency import ConcurrencyLimit, OverloadedError
from broker.limits.rate import AddressRateLimits
from broker.telemetry.metrics import Metrics
from broker.web.addresses import RemoteAddresses

FAILURES_PER_SECOND = 200
FAILURE_BURST = 2000

SLOW_VERIFICATION_SECONDS = 0.1
"""Pause before each JWT of an address that has exceeded the limit of failures."""

CONCURRENT_FORMS = 500
"""Of one address, or one caller that the header authenticates, while they are read. A form may
contain the credential, and thousands of unfinished ones would take a gigabyte."""

_QUEUED_FORMS = 500
_QUEUED_JWTS = 40
_TIMEOUT_SECONDS = 5.0


class AuthenticationLimits:
    """The limits of all client addresses."""

    def __init__(
        self,
        addresses: RemoteAddresses,
        metrics: Metrics,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`clock` returns monotonic seconds."""
        self._addresses = addresses
        self._refused = metrics.rate_limited
        self._failures = AddressRateLimits(
            per_second=FAILURES_PER_SECOND, burst=FAILURE_BURST, clock=clock
        )
        self._slow_jwts = ConcurrencyLimit(
            limit=1, queue=_QUEUED_JWTS, timeout_seconds=_TIMEOUT_SECONDS
        )
        self._forms = ConcurrencyLimit(
            limit=CONCURRENT_FORMS, queue=_QUEUED_FORMS, timeout_seconds=_TIMEOUT_SECONDS
        )

    async def count_failure(self, scope: Mapping[str, object]) -> AccessRefused | None:
        """Count a failed authentication; return the refusal, after a delay, if it is over the
        limit.
        """
        wait = self._failures.admit(self._addresses.of(scope))
        return await self._over_limit(wait) if wait else None

    @asynccontextmanager
    async def verifying_jwt(self, scope: Mapping[str, object]) -> AsyncIterator[None]:
        """A place to verify a JWT in; over the limit of failures, one JWT at a time and slowly.

        Raises `AccessRefused`.
        """
        address = self._addresses.of(scope)
        if not self._failures.seconds_to_wait(address):
            yield
            return
        try:
            await self._slow_jwts.acquire(address)
        except OverloadedError:
            raise await self._over_limit(_TIMEOUT_SECONDS) from None
        try:
            await asyncio.sleep(SLOW_VERIFICATION_SECONDS)
            yield
        finally:
            self._slow_jwts.release(address)

    @asynccontextmanager
    async def reading_form(
        self, scope: Mapping[str, object], caller: str | None = None
    ) -> AsyncIterator[None]:
        """A place to read a form in, of the caller that the header authenticates, or else of the
        address. Raises `AccessRefused`.
        """
        # No address equals this key of a caller.
        key = self._addresses.of(scope) if caller is None else f"={caller}"
        try:
            await self._forms.acquire(key)
        except OverloadedError:
            self._refused.labels(caller or NO_CALLER, "overload").inc()
            raise AccessRefused(RefusalReason.FORM_LIMIT, retry_after_seconds=1) from None
        try:
            yield
        finally:
            self._forms.release(key)

    async def _over_limit(self, wait: float) -> AccessRefused:
        self._refused.labels(NO_CALLER, "failures").inc()
        await asyncio.sleep(REFUSAL_DELAY_SECONDS)
        return AccessRefused(RefusalReason.FAILED_AUTHENTICATIONS, retry_after_seconds=wait)
