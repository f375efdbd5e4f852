"""HTTP client for untrusted servers: follows no redirect, keeps no cookie, bounds the body.

Knows nothing of the server; each package that calls one gives the failures their meaning.
"""

import ssl
from collections.abc import AsyncIterator
from functools import cache
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx2

from broker import __version__

LONGEST_RESPONSE = 256 * 1024
"""Bytes of a body. Key sets and discovery documents are some 2 KiB, Google's tokens 4 KiB."""

MAX_CONNECTIONS = 300
"""Of one client, to all hosts together."""

_TIMEOUT = httpx2.Timeout(10, connect=3)
_LIMITS = httpx2.Limits(
    max_connections=MAX_CONNECTIONS, max_keepalive_connections=20, keepalive_expiry=30
)


class ResponseRefused(Exception):  # noqa: N818  (the broker refuses it)
    """The body is too long or compressed; `reason` is `too_long` or `bad_answer`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@cache
def default_tls_context() -> ssl.SSLContext:
    """Return the TLS context that trusts the system's certificates. Loading it takes 50 ms."""
    return httpx2.create_ssl_context()


def bounded_client(
    transport: httpx2.AsyncBaseTransport | None = None, *, trust: ssl.SSLContext | None = None
) -> httpx2.AsyncClient:
    """Return a client to share among calls; it honours `HTTP(S)_PROXY` and `SSL_CERT_FILE`."""
    return httpx2.AsyncClient(
        transport=transport,
        verify=default_tls_context() if trust is None else trust,
        timeout=_TIMEOUT,
        limits=_LIMITS,
        follow_redirects=False,
        # A cookie set in one call must not travel with another.
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
        # A compressed body could grow without bound when it is unpacked.
        headers={"Accept-Encoding": "identity", "User-Agent": f"token-broker/{__version__}"},
        event_hooks={"response": [_bound_response]},
    )


def failure_reason(error: Exception) -> str:
    """Return the label of a failed call, fit for metrics and logs: the only place that names it."""
    if isinstance(error, ResponseRefused):
        return error.reason
    for kind, reason in _REASONS:
        if isinstance(error, kind):
            return reason
    return "bad_answer"


_REASONS: tuple[tuple[type[Exception], str], ...] = (
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

FAILURES: tuple[type[Exception], ...] = (
    ResponseRefused,
    TimeoutError,
    httpx2.HTTPError,
    httpx2.InvalidURL,
    httpx2.CookieConflict,
    httpx2.StreamError,
)
"""All that a failed call raises; any other exception is a defect of the broker."""

QUOTING_FAILURES: tuple[type[Exception], ...] = (httpx2.ProtocolError, httpx2.DecodingError)
"""Exceptions that may quote bytes of the response, such as a token."""


class _BoundedStream(httpx2.AsyncByteStream):
    """A body that raises `ResponseRefused` after `LONGEST_RESPONSE` bytes."""

    def __init__(self, stream: httpx2.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = LONGEST_RESPONSE
        async for chunk in self._stream:
            left -= len(chunk)
            if left < 0:
                raise ResponseRefused("too_long")
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()


async def _bound_response(response: httpx2.Response) -> None:
    if response.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        raise ResponseRefused("bad_answer")
    assert isinstance(response.stream, httpx2.AsyncByteStream)  # noqa: S101  (an async client's)
    response.stream = _BoundedStream(response.stream)
