"""Bounds what one address may ask of the public listener, before anything is looked at.

Nobody is known there, and behind one address there may be a whole company: so it is generous.
"""

import math
import time
from collections.abc import Callable, Collection

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from broker.database.shares import use_share_of_address
from broker.limits.unauthenticated import Strangers
from broker.telemetry.tallies import Tally
from broker.web.addresses import ClientAddresses

REQUESTS_PER_SECOND = 100
REQUESTS_AT_ONCE = 1000

Refuse = Callable[[Request, int], Response]
"""Makes the answer to a request too many; the number is for `Retry-After`, in seconds."""


class PublicLimits:
    """The ASGI application around the public listener's own."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        addresses: ClientAddresses,
        refused: Tally,
        refuse: Refuse,
        free: Collection[str],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """What begins with one of `free` costs next to nothing, and does not count."""
        self._app = app
        self._addresses = addresses
        self._refused = refused
        self._refuse = refuse
        self._free = tuple(free)
        self._strangers = Strangers(
            per_second=REQUESTS_PER_SECOND, burst=REQUESTS_AT_ONCE, clock=clock
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(self._free):
            await self._app(scope, receive, send)
            return
        address = self._addresses.of(scope)
        wait = self._strangers.take(address)
        if wait:
            self._refused.inc()
            answer = self._refuse(Request(scope), math.ceil(wait))
            await answer(scope, receive, send)
            return
        use_share_of_address(address)
        await self._app(scope, receive, send)
