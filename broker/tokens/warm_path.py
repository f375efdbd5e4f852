"""The warm path: a request that was answered before, letter by letter, is answered without routing.

This is where the broker earns its keep, thousands of times a second, so it is one plain function
that the HTTP protocol asks (`broker.web.at_once`) before it calls the application. What it skips is
parsing, never checking: the credential is authenticated each time, the answer is used only for the
very caller object whose policy admitted it (a changed policy makes a new one), the token must be
alive and live long enough, and the hand-out is timed, counted and audited as on the long way.
Anything it does not know goes the long way.
"""

import time
from collections.abc import Mapping

from starlette.types import Scope

from broker.callers.model import Caller
from broker.callers.registry import CallerRegistry
from broker.clock import Clock
from broker.telemetry.metrics import Metrics
from broker.tokens.counting import HandOuts, RequestLedger
from broker.tokens.held import LAST_SECOND, HeldToken, TokenRequest
from broker.web.request_ids import HEADER, RequestIds

_LONGEST_TARGET = 2048
"""Bytes; longer targets go the long way, so that what is remembered is bounded in bytes, too."""
_ANSWER = (
    b"cache-control: no-store\r\n"
    b"content-length: %d\r\n"
    b"content-type: application/json\r\n"
    b"x-request-id: %b\r\n"
    b"\r\n%b"
)
"""Header by header as the long way has it."""


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
        self.good_until = token.expires_at - max(LAST_SECOND, request.min_ttl)


class WarmPath:
    """What the internal listener asks before its application."""

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
        self._answers: dict[tuple[str, bytes], WarmAnswer] = {}

    def keep(self, scope: Scope, caller: Caller, request: TokenRequest, token: HeldToken) -> None:
        """Remember what answered this request, for the next one like it."""
        if len(scope["raw_path"]) + len(scope["query_string"]) > _LONGEST_TARGET:
            return
        if len(self._answers) >= self._answers_at_most:
            # The oldest goes; if it is still warm, it comes back by the long way.
            del self._answers[next(iter(self._answers))]
        query = scope["query_string"]
        target = scope["raw_path"] + b"?" + query if query else scope["raw_path"]
        key = (caller.name, target)
        hand_outs = HandOuts(caller, request.user_id, token, self._ledger)
        self._answers[key] = WarmAnswer(caller, request, token, hand_outs)

    def answer(self, target: bytes, headers: Mapping[bytes, bytes]) -> bytes | None:
        """The answer to a GET, ready to be sent; nothing if it has to go the long way."""
        began = time.perf_counter()
        epoch = self._clock.epoch()
        answer = self._find(target, headers.get(b"authorization"), epoch)
        if answer is None:
            return None
        request_id = self._request_ids.choose(headers.get(HEADER))
        answer.hand_outs.note(request_id=request_id, epoch=epoch)
        body = answer.token.body(int(answer.token.expires_at - epoch))
        whole = _ANSWER % (len(body), request_id, body)
        self._duration.observe(time.perf_counter() - began)
        return whole

    def _find(self, target: bytes, credential: bytes | None, epoch: float) -> WarmAnswer | None:
        caller = self._registry.authenticate(credential)
        if caller is None:
            return None
        key = (caller.name, target)
        answer = self._answers.get(key)
        if answer is None:
            return None
        if answer.caller is not caller or not answer.token.alive:
            del self._answers[key]
            return None
        return answer if epoch <= answer.good_until else None
