"""The fast path: a GET whose target was answered before is answered without the application.

It runs thousands of times a second, so it is one plain function, called by the HTTP protocol
(`broker.server.fast_path`). It skips parsing, never a check: the credential is authenticated each
time, an answer serves only the very caller object whose policy admitted the request (a changed
policy makes a new one), the token must be alive and live long enough, and the hand-out is timed,
counted and audited as on the regular path. Every other request takes the regular path.
"""

import json
import time
from collections.abc import Mapping

from starlette.types import Scope

from broker.callers.answers import problem_of
from broker.callers.model import Caller
from broker.callers.refusals import AccessRefused, RefusalReason
from broker.callers.registry import CallerRegistry
from broker.clock import Clock
from broker.limits.rate import Gcra
from broker.server.fast_path import TooManyRequests
from broker.telemetry.metrics import Metrics
from broker.tokens.cache.token_cache import TokenCache
from broker.tokens.request_ledger import RequestLedger
from broker.web.request_ids import HEADER, RequestIds

_LONGEST_TARGET = 2048
"""Bytes; longer targets take the regular path, so that the cache is bounded in bytes, too."""
_ANSWER = (
    b"cache-control: no-store\r\n"
    b"content-length: %d\r\n"
    b"content-type: application/json\r\n"
    b"x-request-id: %b\r\n"
    b"\r\n%b"
)
"""The headers of the regular path, in its order."""
_REFUSAL = (
    b"cache-control: no-store\r\n"
    b"content-length: %d\r\n"
    b"content-type: application/problem+json\r\n"
    b"x-request-id: %b\r\n"
    b"retry-after: %d\r\n"
    b"\r\n%b"
)


def cacheable_target(scope: Scope) -> bytes | None:
    """Return the target of a GET as sent; None if it is too long to be cached."""
    if len(scope["raw_path"]) + len(scope["query_string"]) > _LONGEST_TARGET:
        return None
    path: bytes = scope["raw_path"]
    query: bytes = scope["query_string"]
    return path + b"?" + query if query else path


class TokenFastPath:
    """Answers token requests of the internal listener from the token cache."""

    def __init__(
        self,
        *,
        registry: CallerRegistry,
        cache: TokenCache,
        ledger: RequestLedger,
        metrics: Metrics,
        clock: Clock,
        request_ids: RequestIds,
        route: str,
    ) -> None:
        self._registry = registry
        self._cache = cache
        self._ledger = ledger
        self._clock = clock
        self._request_ids = request_ids
        self._limited = metrics.rate_limited
        self._refusal_duration = metrics.http_request_duration.labels(
            "internal", "unmatched", "GET", "429"
        )
        self._duration = metrics.http_request_duration.labels("internal", route, "GET", "200")

    def answer(self, target: bytes, headers: Mapping[bytes, bytes]) -> bytes | None:
        """Return the answer to a GET, ready to be sent; None if it takes the regular path."""
        began = time.perf_counter()
        epoch = self._clock.epoch()
        caller = self._registry.authenticate(headers.get(b"authorization"))
        answer = self._cache.find_by_target(caller, target) if caller is not None else None
        if caller is None:
            return None
        bucket = caller.gcra
        if answer is None:
            return self._rate_limited(caller, bucket, began, headers)
        token = answer.token
        seconds_left = token.expires_at - epoch
        if seconds_left < answer.min_ttl or not token.alive:
            return self._rate_limited(caller, bucket, began, headers)
        if bucket is not None and bucket.admit(began):
            return self._rate_limited(caller, bucket, began, headers)
        request_id = self._request_ids.choose(headers.get(HEADER))
        self._ledger.hand_outs(caller).record(token, request_id=request_id, epoch=epoch)
        body = token.body(int(seconds_left))
        whole = _ANSWER % (len(body), request_id, body)
        self._duration.observe(time.perf_counter() - began)
        return whole

    def _rate_limited(
        self,
        caller: Caller,
        bucket: Gcra | None,
        now: float,
        headers: Mapping[bytes, bytes],
    ) -> TooManyRequests | None:
        """Refuse a request over the rate limit at the least cost; None for all others."""
        wait = bucket.seconds_to_wait(now) if bucket is not None else 0.0
        if not wait:
            return None
        request_id = self._request_ids.choose(headers.get(HEADER))
        problem = problem_of(AccessRefused(RefusalReason.RATE_LIMIT, retry_after_seconds=wait))
        body = json.dumps(problem.body(request_id.decode())).encode()
        self._limited.labels(caller.name, "rate").inc()
        retry_after = problem.retry_after or 1
        refusal = TooManyRequests(_REFUSAL % (len(body), request_id, retry_after, body))
        self._refusal_duration.observe(time.perf_counter() - now)
        return refusal
