"""The warm path: a request that was answered before, letter by letter, is answered without routing.

This is where the broker earns its keep, thousands of times a second, so it is one plain function
that the HTTP protocol (`broker.server.fast_path`) asks before the application. What it skips is
parsing, never checking: the credential is authenticated each time, the answer is used only for the
very caller object whose policy admitted it (a changed policy makes a new one), the token must be
alive and live long enough, and the hand-out is timed, counted and audited as on the long way.
Anything it does not know goes the long way.
"""

import json
import math
import time
from collections.abc import Mapping

from starlette.types import Scope

from broker.callers.model import Caller
from broker.callers.registry import CallerRegistry
from broker.clock import Clock
from broker.limits.rate import TokenBucket
from broker.server.fast_path import Refused
from broker.telemetry.metrics import Metrics
from broker.tokens.cache.cached_token import HeldToken
from broker.tokens.cache.token_cache import HeldTokens, TokenRequest
from broker.tokens.counting import RequestLedger
from broker.web.problems import rate_limited
from broker.web.request_ids import HEADER, RequestIds

_LONGEST_TARGET = 2048
"""Bytes; longer targets go the long way, so that what is held is bounded in bytes, too."""
_ANSWER = (
    b"cache-control: no-store\r\n"
    b"content-length: %d\r\n"
    b"content-type: application/json\r\n"
    b"x-request-id: %b\r\n"
    b"\r\n%b"
)
"""Header by header as the long way has it."""
_REFUSAL = (
    b"cache-control: no-store\r\n"
    b"content-length: %d\r\n"
    b"content-type: application/problem+json\r\n"
    b"x-request-id: %b\r\n"
    b"retry-after: %d\r\n"
    b"\r\n%b"
)


class WarmPath:
    """What the internal listener asks before its application."""

    def __init__(
        self,
        *,
        registry: CallerRegistry,
        held: HeldTokens,
        ledger: RequestLedger,
        metrics: Metrics,
        clock: Clock,
        request_ids: RequestIds,
        route: str,
    ) -> None:
        self._registry = registry
        self._held = held
        self._ledger = ledger
        self._clock = clock
        self._request_ids = request_ids
        self._limited = metrics.rate_limited
        self._refusal_duration = metrics.http_request_duration.labels(
            "internal", "unmatched", "GET", "429"
        )
        self._duration = metrics.http_request_duration.labels("internal", route, "GET", "200")

    def keep(self, scope: Scope, caller: Caller, request: TokenRequest, token: HeldToken) -> None:
        """Remember what answered this request, for the next one like it."""
        if len(scope["raw_path"]) + len(scope["query_string"]) > _LONGEST_TARGET:
            return
        query = scope["query_string"]
        target = scope["raw_path"] + b"?" + query if query else scope["raw_path"]
        self._held.keep_answer(caller, request, token, target=target)

    def answer(self, target: bytes, headers: Mapping[bytes, bytes]) -> bytes | None:
        """The answer to a GET, ready to be sent; nothing if it has to go the long way."""
        began = time.perf_counter()
        epoch = self._clock.epoch()
        caller = self._registry.authenticate(headers.get(b"authorization"))
        answer = self._held.spelled(caller, target) if caller is not None else None
        if caller is None:
            return None
        bucket = caller.bucket
        if answer is None:
            return self._turned_away(caller, bucket, began, headers)
        token = answer.token
        seconds_left = token.expires_at - epoch
        if seconds_left < answer.min_ttl or not token.alive:
            return self._turned_away(caller, bucket, began, headers)
        if bucket is not None and bucket.take(began):
            return self._turned_away(caller, bucket, began, headers)
        request_id = self._request_ids.choose(headers.get(HEADER))
        self._ledger.hand_outs(caller).note(token, request_id=request_id, epoch=epoch)
        body = token.body(int(seconds_left))
        whole = _ANSWER % (len(body), request_id, body)
        self._duration.observe(time.perf_counter() - began)
        return whole

    def _turned_away(
        self,
        caller: Caller,
        bucket: TokenBucket | None,
        now: float,
        headers: Mapping[bytes, bytes],
    ) -> Refused | None:
        """Whoever asks for too much is refused at the least cost; others go the long way."""
        wait = bucket.wait(now) if bucket is not None else 0.0
        if not wait:
            return None
        request_id = self._request_ids.choose(headers.get(HEADER))
        problem = rate_limited(math.ceil(wait))
        body = json.dumps(problem.body(request_id.decode())).encode()
        self._limited.labels(caller.name, "rate").inc()
        refusal = Refused(_REFUSAL % (len(body), request_id, problem.retry_after or 1, body))
        self._refusal_duration.observe(time.perf_counter() - now)
        return refusal
