"""What each listener does around its routes: an id and a stopwatch for every request.

Paths reach the router as they stand on the wire, not percent-decoded, so that a user id may contain
`%2F`; `broker.web.paths` decodes each parameter once.
"""

import time
from collections.abc import Callable, Hashable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from broker.limits.loop_fairness import Rounds
from broker.server.fast_path import AnswerAtOnce
from broker.telemetry.metrics import Metrics
from broker.web.request_ids import HEADER, RequestIds

NOSNIFF = (b"x-content-type-options", b"nosniff")
"""No browser takes an answer for another kind than it says."""

REQUESTS_A_ROUND = 16
"""Begun in one round of the event loop, beside those that are answered at once."""

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Listener:
    """The outermost ASGI application of a listener; routes find the id in `request.state`.

    What is put there as `at_end` is called when the request has ended.
    """

    def __init__(
        self,
        name: str,
        app: ASGIApp,
        *,
        metrics: Metrics,
        request_ids: RequestIds,
        answer_at_once: AnswerAtOnce | None = None,
        line_of: Callable[[Scope], Hashable] | None = None,
        is_for_browsers: bool = False,
    ) -> None:
        """`answer_at_once` is asked first; it gives its answers an id and times them itself. Every
        answer of a listener for browsers has `NOSNIFF`. `line_of` tells those who wait apart: by
        their credentials, unless given.
        """
        self.answer_at_once = answer_at_once
        self._name = name
        self._app = app
        self._durations = metrics.http_request_duration
        self._request_ids = request_ids
        self._is_for_browsers = is_for_browsers
        self._line_of = line_of or _credential_of
        self._rounds = Rounds(each=REQUESTS_A_ROUND)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        if not self._rounds.begin_now():
            await self._rounds.begin(self._line_of(scope))
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
            ending = scope["state"].get("at_end")
            if ending is not None:
                ending()
            method = scope["method"] if scope["method"] in _METHODS else "OTHER"
            self._durations.labels(self._name, _route_of(scope), method, str(status)).observe(
                time.perf_counter() - began
            )


_CLOSE = (b"connection", b"close")
"""The server ends the connection after a defect; who is not told would ask on it once more."""


def _credential_of(scope: Scope) -> bytes:
    """As it came: those who wait are told apart by it, and nothing is believed yet."""
    named = (value for name, value in scope["headers"] if name == b"authorization")
    return next(named, b"")


def _route_of(scope: Scope) -> str:
    """The route's template, never the path itself: it holds user ids."""
    route = scope.get("route")
    return getattr(route, "path", None) or "unmatched"
