"""Credentials that nobody has: each address may try a bounded number, then it has to wait.

Only what fails counts. Whoever comes with a good key is served from the same address all the same,
and so is whoever comes with a good JWT, if a little later: behind one address there may be many.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from broker.callers.limits import NOBODY, PAUSE_SECONDS
from broker.limits.concurrency import OverloadedError, Turns
from broker.limits.unauthenticated import Strangers
from broker.telemetry.metrics import Metrics
from broker.web.addresses import ClientAddresses
from broker.web.problems import Problem, rate_limited

FAILURES_PER_SECOND = 200
FAILURES_AT_ONCE = 2000

SLOW_VERIFICATION_SECONDS = 0.1
"""Between two JWTs that come from an address that has used up its tries."""

FORMS_AT_ONCE = 500
"""Of one address, or one caller that is known by its header, while they are read: whose a form is
may stand in it, and thousands that never end would be a gigabyte."""

_FORMS_WAITING = 500
_WAITING = 40
_PATIENCE_SECONDS = 5.0


class FailedAttempts:
    """Counts failures by address."""

    def __init__(
        self,
        addresses: ClientAddresses,
        metrics: Metrics,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`clock` gives seconds, and never goes back."""
        self._addresses = addresses
        self._refused = metrics.rate_limited.labels(NOBODY, "failures")
        self._strangers = Strangers(
            per_second=FAILURES_PER_SECOND, burst=FAILURES_AT_ONCE, clock=clock
        )
        self._slow = Turns(at_once=1, waiting=_WAITING, patience_seconds=_PATIENCE_SECONDS)
        self._overloads = metrics.rate_limited
        self._forms = Turns(
            at_once=FORMS_AT_ONCE, waiting=_FORMS_WAITING, patience_seconds=_PATIENCE_SECONDS
        )

    async def failed(self, scope: Mapping[str, object]) -> Problem | None:
        """Count one; what to answer, a little later, if it was one too many."""
        wait = self._strangers.take(self._addresses.of(scope))
        return await self._too_many(wait) if wait else None

    @asynccontextmanager
    async def verifying(self, scope: Mapping[str, object]) -> AsyncIterator[None]:
        """A time to verify a JWT in: at once, or slowly. Raises `Problem` 429."""
        address = self._addresses.of(scope)
        if not self._strangers.wait(address):
            yield
            return
        try:
            await self._slow.take(address)
        except OverloadedError:
            raise await self._too_many(_PATIENCE_SECONDS) from None
        try:
            await asyncio.sleep(SLOW_VERIFICATION_SECONDS)
            yield
        finally:
            self._slow.give_back(address)

    @asynccontextmanager
    async def reading(
        self, scope: Mapping[str, object], caller: str | None = None
    ) -> AsyncIterator[None]:
        """A time to read in what a request proves, if its head has not. Raises `Problem` 429."""
        # No name of a caller is an address.
        whose = self._addresses.of(scope) if caller is None else f"={caller}"
        try:
            await self._forms.take(whose)
        except OverloadedError:
            self._overloads.labels(caller or NOBODY, "overload").inc()
            raise rate_limited(1, "Too many requests are still being sent.") from None
        try:
            yield
        finally:
            self._forms.give_back(whose)

    async def _too_many(self, wait: float) -> Problem:
        self._refused.inc()
        await asyncio.sleep(PAUSE_SECONDS)
        return rate_limited(math.ceil(wait), "Too many failed attempts from this address.")
