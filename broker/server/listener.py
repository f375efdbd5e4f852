"""The outermost ASGI application of a listener: request ids, durations and fairness.

Routes see the path as it is on the wire, not percent-decoded, so that a user id may contain `%2F`;
`broker.web.parameters` decodes each parameter once.
"""

import time
from collections.abc import Callable, Hashable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from broker.limits.loop_fairness import LoopFairness
from broker.server.fast_path import FastPath
from broker.telemetry.metrics import Metrics
from broker.web.request_ids import HEADER, RequestIds

NOSNIFF = (b"x-content-type-options", b"nosniff")
"""Keeps browsers from guessing another content type."""

REQUESTS_PER_ITERATION = 16
"""Requests started in one event-loop iteration, besides those on the fast path."""

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

_CLOSE = (b"connection", b"close")
"""The server ends the connection after a 500. A client that is not informed would reuse it."""


class Listener:
    """Wraps the routes of one listener.

    Routes find the request id in `request.state.request_id`. A callable that they store as
    `request.state.at_end` is called when the request has ended.
    """

    def __init__(
        self,
        name: str,
        app: ASGIApp,
        *,
        metrics: Metrics,
        request_ids: RequestIds,
        fast_path: FastPath | None = None,
        fairness_key: Callable[[Scope], Hashable] | None = None,
        is_for_browsers: bool = False,
    ) -> None:
        """`fast_path` gives its answers a request id and a duration itself.

        Waiting requests are served round-robin by `fairness_key`, by default their credential.
        Responses to browsers have the header `NOSNIFF`.
        """
        self.fast_path = fast_path
        self._name = name
        self._app = app
        self._durations = metrics.http_request_duration
        self._request_ids = request_ids
        self._is_for_browsers = is_for_browsers
        self._fairness_key = fairness_key or _credential_of
        self._fairness = LoopFairness(per_iteration=REQUESTS_PER_ITERATION)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        if not self._fairness.try_admit():
            await self._fairness.admit(self._fairness_key(scope))
        request_id = self._request_ids.of(scope["headers"])
        scope.setdefault("state", {})["request_id"] = request_id
        scope["path"] = scope.get("raw_path", scope["path"].encode()).decode("latin-1")
        status = 500

        async def send_noting_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [*message["headers"], (HEADER, request_id.encode())]
                if self._is_for_browsers and NOSNIFF not in headers:
                    headers.append(NOSNIFF)
                if status == 500:
                    headers.append(_CLOSE)
                message["headers"] = headers
            await send(message)

        try:
            await self._app(scope, receive, send_noting_status)
        finally:
            at_end = scope["state"].get("at_end")
            if at_end is not None:
                at_end()
            method = scope["method"] if scope["method"] in _METHODS else "OTHER"
            self._durations.labels(self._name, _route_of(scope), method, str(status)).observe(
                time.perf_counter() - began
            )


def _credential_of(scope: Scope) -> bytes:
    """Return the unverified credential; it only tells waiting requests apart."""
    named = (value for name, value in scope["headers"] if name == b"authorization")
    return next(named, b"")


def _route_of(scope: Scope) -> str:
    """Return the route's template, never the path: a path contains user ids."""
    route = scope.get("route")
    return getattr(route, "path", None) or "unmatched"
