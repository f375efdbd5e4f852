"""Posts a webhook to the receiver: one bounded request, whose result is always a value.

Follows no redirect, keeps no cookie, and reads only a little of the response body.
"""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx2

from broker import __version__
from broker.outbound.http_client import FAILURES, default_tls_context, failure_reason
from broker.outbound.responses import retry_after
from broker.webhooks.signing import SignedMessage

DEADLINE = timedelta(seconds=20)
"""For one call as a whole; Standard Webhooks recommends 15 to 30 seconds."""

MAX_CONCURRENT = 10
"""Deliveries at a time, in each replica."""

_CONNECT_SECONDS = 5
_BODY_BYTES = 4096
_BODY_SECONDS = 1.0

_TIMEOUT = httpx2.Timeout(DEADLINE.total_seconds(), connect=_CONNECT_SECONDS)
_LIMITS = httpx2.Limits(
    max_connections=MAX_CONCURRENT, max_keepalive_connections=2, keepalive_expiry=30
)
_THROTTLING = frozenset({429, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class DeliveryResult:
    """The result of one attempt."""

    failure: str | None
    """None if the receiver accepted it, otherwise a reason such as `timeout` or `http_500`."""
    retry_after: timedelta | None = None
    """The receiver's `Retry-After`."""
    is_gone: bool = False
    """True if the receiver wants no more webhooks (410)."""
    is_throttling: bool = False
    """True if the receiver, or a gateway in front of it, is overloaded."""


def webhook_http_client() -> httpx2.AsyncClient:
    """Return the HTTP client for all deliveries; it honours `HTTP(S)_PROXY` and `SSL_CERT_FILE`.

    Unlike the broker's other clients it does not bound the body: the status line decides.
    """
    return httpx2.AsyncClient(
        verify=default_tls_context(),
        timeout=_TIMEOUT,
        limits=_LIMITS,
        follow_redirects=False,
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
        headers={"Accept-Encoding": "identity", "User-Agent": f"token-broker/{__version__}"},
    )


class Delivery:
    """Posts messages to one receiver."""

    def __init__(self, url: str, http: httpx2.AsyncClient) -> None:
        self._url = url
        self._http = http

    async def post(self, message: SignedMessage) -> DeliveryResult:
        """Send a message once. Never raises for a failure of the receiver or the network."""
        try:
            async with (
                asyncio.timeout(DEADLINE.total_seconds()),
                self._http.stream(
                    "POST", self._url, content=message.body, headers=dict(message.headers)
                ) as response,
            ):
                result = _result_of(response)
                await _read_short_body(response)
                return result
        except FAILURES as error:
            return DeliveryResult(failure_reason(error))


def _result_of(response: httpx2.Response) -> DeliveryResult:
    if response.is_success:
        return DeliveryResult(None)
    return DeliveryResult(
        f"http_{response.status_code}",
        retry_after=retry_after(response),
        is_gone=response.status_code == 410,
        is_throttling=response.status_code in _THROTTLING,
    )


async def _read_short_body(response: httpx2.Response) -> None:
    """Read a short body, so that the connection can be reused; a long one is cut off.

    No failure here changes the result, which the status line has decided.
    """
    left = _BODY_BYTES
    with suppress(*FAILURES):
        async with asyncio.timeout(_BODY_SECONDS):
            async for chunk in response.aiter_raw():
                left -= len(chunk)
                if left < 0:
                    return
