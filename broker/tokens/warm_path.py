"""The warm path: a request that was answered before, letter by letter, is answered without routing.

This is where the broker earns its keep, thousands of times a second, so it is one plain ASGI
function in front of the router. What it skips is parsing, never checking: the credential is
authenticated each time, the answer is used only for the very caller object whose policy admitted it
(a reloaded policy makes new ones), the token must be alive and live long enough, and the hand-out
is timed, counted and audited as on the long way. Anything it does not know goes the long way.
"""

import time
from collections.abc import Iterable

from starlette.types import ASGIApp, Receive, Scope, Send

from broker.callers.model import Caller
from broker.callers.registry import CallerRegistry
from broker.clock import Clock
from broker.telemetry.metrics import Metrics
from broker.tokens.counting import HandOuts, RequestLedger
from broker.tokens.held import HeldToken, TokenRequest
from broker.web.request_ids import HEADER, RequestIds

_LAST_SECOND = 1
_TYPE = (b"content-type", b"application/json")
_NO_STORE = (b"cache-control", b"no-store")


class WarmAnswer:
    """A token that answered a caller's question, and all that is needed to answer it again."""

    __slots__ = ("caller", "good_until", "hand_outs", "request", "token")

    def __init__(
        self, caller: Caller, request: TokenRequest, token: HeldToken, hand_outs: HandOuts
    ) -> None:
        self.caller = caller
        self.request = request
        self.token = token
        self.hand_outs = hand_outs
        self.good_until = token.expires_at - max(_LAST_SECOND, request.min_ttl)


class WarmPath:
    """An ASGI application in front of the internal listener's."""

    def __init__(
        self,
        *,
        registry: CallerRegistry,
        ledger: RequestLedger,
        metrics: Metrics,
        clock: Clock,
        request_ids: RequestIds,
        route: str,
        answers_at_most: int = 100_000,
    ) -> None:
        self._registry = registry
        self._ledger = ledger
        self._clock = clock
        self._request_ids = request_ids
        self._duration = metrics.http_request_duration.labels("internal", route, "GET", "200")
        self._answers_at_most = answers_at_most
        self._answers: dict[tuple[str, bytes, bytes], WarmAnswer] = {}
        self._long_way: ASGIApp | None = None

    def before(self, app: ASGIApp) -> "WarmPath":
        """Set what answers all that is not warm."""
        self._long_way = app
        return self

    def keep(self, scope: Scope, caller: Caller, request: TokenRequest, token: HeldToken) -> None:
        """Remember what answered this request, for the next one like it."""
        if len(self._answers) >= self._answers_at_most:
            # The oldest goes; if it is still warm, it comes back by the long way.
            del self._answers[next(iter(self._answers))]
        key = (caller.name, scope["raw_path"], scope["query_string"])
        hand_outs = HandOuts(caller, request.user_id, token, self._ledger)
        self._answers[key] = WarmAnswer(caller, request, token, hand_outs)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.perf_counter()
        answer = None
        if scope["type"] == "http" and scope["method"] == "GET":
            credential, own_id = _headers_that_matter(scope["headers"])
            epoch = self._clock.epoch()
            answer = self._find(scope, credential, epoch)
        if answer is None:
            assert self._long_way is not None  # noqa: S101  (`before` is called at assembly)
            await self._long_way(scope, receive, send)
            return
        request_id = self._request_ids.choose(own_id)
        answer.hand_outs.note(request_id=request_id, epoch=epoch)
        body = answer.token.body(int(answer.token.expires_at - epoch))
        length = (b"content-length", b"%d" % len(body))
        headers = [length, _TYPE, _NO_STORE, (HEADER, request_id)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})
        self._duration.observe(time.perf_counter() - began)

    def _find(self, scope: Scope, credential: bytes | None, epoch: float) -> WarmAnswer | None:
        caller = self._registry.authenticate(credential)
        if caller is None:
            return None
        key = (caller.name, scope["raw_path"], scope["query_string"])
        answer = self._answers.get(key)
        if answer is None:
            return None
        if answer.caller is not caller or not answer.token.alive:
            del self._answers[key]
            return None
        return answer if epoch <= answer.good_until else None


def _headers_that_matter(
    headers: Iterable[tuple[bytes, bytes]],
) -> tuple[bytes | None, bytes | None]:
    """The credential, unless there are several, and the caller's own id for the request."""
    credential = own_id = None
    for name, value in headers:
        if name == b"authorization":
            if credential is not None:
                return None, None
            credential = value
        elif name == HEADER and own_id is None:
            own_id = value
    return credential, own_id
