"""An HTTP client that trusts no answer: no redirect, no cookie, no body without end.

Knows nothing of who is asked; each room gives the failures a meaning of its own.
"""

import ssl
from collections.abc import AsyncIterator
from functools import cache
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx2

from broker import __version__

LONGEST_ANSWER = 256 * 1024
"""Bytes of a body. Key sets and discovery documents are some 2 KiB, Google's tokens 4 KiB."""

_TIMEOUT = httpx2.Timeout(10, connect=3)
MOST_CONNECTIONS = 300
"""Of one client, to all hosts together."""

_LIMITS = httpx2.Limits(
    max_connections=MOST_CONNECTIONS, max_keepalive_connections=20, keepalive_expiry=30
)


class AnswerRefused(Exception):  # noqa: N818  (named for what was done)
    """An answer was not read to its end; `reason` is `too_long` or `bad_answer`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@cache
def usual_trust() -> ssl.SSLContext:
    """The certificates that are trusted unless it is said otherwise. To load them takes 50 ms."""
    return httpx2.create_ssl_context()


def bounded_client(
    transport: httpx2.AsyncBaseTransport | None = None, *, trust: ssl.SSLContext | None = None
) -> httpx2.AsyncClient:
    """A client for many calls; `HTTP(S)_PROXY` and `SSL_CERT_FILE` are honoured."""
    return httpx2.AsyncClient(
        transport=transport,
        verify=usual_trust() if trust is None else trust,
        timeout=_TIMEOUT,
        limits=_LIMITS,
        follow_redirects=False,
        # A cookie set in one call must not travel with another.
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
        # Compressed answers could grow without bound while they are unpacked.
        headers={"Accept-Encoding": "identity", "User-Agent": f"token-broker/{__version__}"},
        event_hooks={"response": [_bound_answer]},
    )


def failure_reason(error: Exception) -> str:
    """The one place where the failures of a call get their names, fit for labels and logs."""
    if isinstance(error, AnswerRefused):
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
    AnswerRefused,
    TimeoutError,
    httpx2.HTTPError,
    httpx2.InvalidURL,
    httpx2.CookieConflict,
    httpx2.StreamError,
)
"""All that a call raises if it fails; anything else is a mistake of our own."""

QUOTING_FAILURES: tuple[type[Exception], ...] = (httpx2.ProtocolError, httpx2.DecodingError)
"""Those that may quote the answer's bytes, a token among them."""


class _BoundedStream(httpx2.AsyncByteStream):
    """A body that ends in `AnswerRefused` once it is longer than it may be."""

    def __init__(self, stream: httpx2.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = LONGEST_ANSWER
        async for chunk in self._stream:
            left -= len(chunk)
            if left < 0:
                raise AnswerRefused("too_long")
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()


async def _bound_answer(response: httpx2.Response) -> None:
    if response.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        raise AnswerRefused("bad_answer")
    assert isinstance(response.stream, httpx2.AsyncByteStream)  # noqa: S101  (an async client's)
    response.stream = _BoundedStream(response.stream)
