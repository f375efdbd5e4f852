"""Per-address rate limit of the public listener, before a request is routed.

The listener's users are unauthenticated, and a whole company may share one address, so the limit is
generous.
"""

import time
from collections.abc import Callable, Collection

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from broker.backoff import retry_after
from broker.database.shares import use_share_of_address
from broker.limits.rate import AddressRateLimits
from broker.telemetry.lockless_metrics import LocklessCounter
from broker.web.addresses import RemoteAddresses

REQUESTS_PER_SECOND = 100
REQUESTS_AT_ONCE = 1000

Refuse = Callable[[Request, int], Response]
"""Makes the response to a rejected request; the number is its `Retry-After`, in seconds."""


class PublicRateLimit:
    """ASGI middleware around the public listener's application."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        addresses: RemoteAddresses,
        refused: LocklessCounter,
        refuse: Refuse,
        free: Collection[str],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`free` are prefixes of paths that are cheap to serve and are not counted."""
        self._app = app
        self._addresses = addresses
        self._refused = refused
        self._refuse = refuse
        self._free = tuple(free)
        self._limits = AddressRateLimits(
            per_second=REQUESTS_PER_SECOND, burst=REQUESTS_AT_ONCE, clock=clock
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(self._free):
            await self._app(scope, receive, send)
            return
        address = self._addresses.of(scope)
        wait = self._limits.admit(address)
        if wait:
            self._refused.inc()
            answer = self._refuse(Request(scope), retry_after(wait))
            await answer(scope, receive, send)
            return
        use_share_of_address(address)
        await self._app(scope, receive, send)
