"""The edge towards Google: one connection pool, hard bounds, and every failure given its name.

Follows no redirect, keeps no cookie, reads no answer without end.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import httpx2
from authlib.common.errors import AuthlibBaseError

from broker import __version__
from broker.google.errors import GoogleError, GoogleUnavailable, retry_after
from broker.google.json_answers import json_object
from broker.telemetry.metrics import Metrics

DEADLINE = timedelta(seconds=8)
"""For one call as a whole; httpx's own time-outs start anew with every byte that trickles in."""
LONGEST_ANSWER = 256 * 1024
"""Bytes of a body. Google's key sets and discovery documents are some 2 KiB, its tokens 4 KiB."""

_TIMEOUT = httpx2.Timeout(10, connect=3)
_LIMITS = httpx2.Limits(max_connections=100, max_keepalive_connections=20, keepalive_expiry=30)


def google_http_client(transport: httpx2.AsyncBaseTransport | None = None) -> httpx2.AsyncClient:
    """The one client for all calls to Google; `HTTP(S)_PROXY` and `SSL_CERT_FILE` are honoured.

    Making one costs tens of milliseconds (trust store), so that there should be one a process.
    """
    return httpx2.AsyncClient(
        transport=transport,
        timeout=_TIMEOUT,
        limits=_LIMITS,
        follow_redirects=False,
        # A cookie set while one user's token is refreshed must not travel with another's.
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
        # Compressed answers could grow without bound while they are unpacked.
        headers={"Accept-Encoding": "identity", "User-Agent": f"token-broker/{__version__}"},
        event_hooks={"response": [_bound_answer]},
    )


class SharedPool(httpx2.AsyncBaseTransport):
    """Lets short-lived clients send through a long-lived one, whose connections stay open."""

    def __init__(self, http: httpx2.AsyncClient) -> None:
        self._http = http

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        return await self._http.send(request, stream=True, auth=None)

    async def aclose(self) -> None:
        """Leaves the pool open: it belongs to the long-lived client."""


@asynccontextmanager
async def at_google(
    endpoint: str, metrics: Metrics, deadline: timedelta = DEADLINE
) -> AsyncIterator[None]:
    """One call to Google: ended at the deadline, its failures mapped to `GoogleError`, counted."""
    started = time.perf_counter()
    outcome = "crashed"
    try:
        async with asyncio.timeout(deadline.total_seconds()):
            yield
        outcome = "ok"
    except GoogleError as error:
        outcome = error.reason
        raise
    except asyncio.CancelledError:
        outcome = "cancelled"
        raise
    except _MAPPED_ERRORS as error:
        mapped = map_transport_error(error)
        outcome = mapped.reason
        # A protocol error may quote the answer's bytes, a token among them: cut it off.
        raise mapped from (None if isinstance(error, _QUOTING_ERRORS) else error)
    finally:
        metrics.google_requests.labels(endpoint=endpoint, outcome=outcome).inc()
        metrics.google_request_duration.labels(endpoint=endpoint).observe(
            time.perf_counter() - started
        )


async def fetch_json(
    http: httpx2.AsyncClient, url: str, endpoint: str, metrics: Metrics
) -> dict[str, Any]:
    """A public document's JSON object. Raises `GoogleUnavailable`, whatever the failure."""
    async with at_google(endpoint, metrics):
        response = await http.get(url, headers={"Accept": "application/json"})
        if response.is_error:
            raise GoogleUnavailable(f"http_{response.status_code}", retry_after(response))
        document = json_object(response) if response.status_code == 200 else None
        if document is None:
            raise GoogleUnavailable("bad_answer")
        return document


def map_transport_error(error: Exception) -> GoogleUnavailable:
    """The one place where third-party exceptions of a call become Google's being unavailable."""
    for kind, reason in _TRANSPORT_REASONS:
        if isinstance(error, kind):
            return GoogleUnavailable(reason)
    return GoogleUnavailable("bad_answer")


_TRANSPORT_REASONS: tuple[tuple[type[Exception], str], ...] = (
    (httpx2.PoolTimeout, "busy"),
    (httpx2.TimeoutException, "timeout"),
    (TimeoutError, "timeout"),
    (httpx2.ConnectError, "connect"),
    (httpx2.ProxyError, "proxy"),
    (httpx2.NetworkError, "network"),
    (httpx2.ProtocolError, "protocol"),
    (httpx2.UnsupportedProtocol, "bad_endpoint"),
    (httpx2.InvalidURL, "bad_endpoint"),
    (httpx2.TransportError, "network"),
)
_MAPPED_ERRORS = (
    TimeoutError,
    httpx2.HTTPError,
    httpx2.InvalidURL,
    httpx2.CookieConflict,
    httpx2.StreamError,
    AuthlibBaseError,
)
_QUOTING_ERRORS = (httpx2.ProtocolError, httpx2.DecodingError, AuthlibBaseError)


class _BoundedStream(httpx2.AsyncByteStream):
    """A body that ends in `GoogleUnavailable` once it is longer than it may be."""

    def __init__(self, stream: httpx2.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = LONGEST_ANSWER
        async for chunk in self._stream:
            left -= len(chunk)
            if left < 0:
                raise GoogleUnavailable("too_long")
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()


async def _bound_answer(response: httpx2.Response) -> None:
    if response.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        raise GoogleUnavailable("bad_answer")
    assert isinstance(response.stream, httpx2.AsyncByteStream)  # noqa: S101  (an async client's)
    response.stream = _BoundedStream(response.stream)
