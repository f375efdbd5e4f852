"""The edge towards the product's receiver: one POST, bounded, and every outcome given its name.

Follows no redirect, keeps no cookie, reads of an answer no more than a little.
"""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx2

from broker import __version__
from broker.google.errors import retry_after
from broker.outbound.client import FAILURES, failure_reason, usual_trust
from broker.webhooks.messages import Message

DEADLINE = timedelta(seconds=20)
"""For one call as a whole; the specification recommends 15 to 30 seconds."""

AT_ONCE = 10

_CONNECT_SECONDS = 5
_LITTLE = 4096
_LITTLE_SECONDS = 1.0

_TIMEOUT = httpx2.Timeout(DEADLINE.total_seconds(), connect=_CONNECT_SECONDS)
_LIMITS = httpx2.Limits(max_connections=AT_ONCE, max_keepalive_connections=2, keepalive_expiry=30)
_THROTTLING = frozenset({429, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one attempt."""

    failure: str | None
    """None when the receiver took it, else a word such as `timeout` or `http_500`."""
    retry_after: timedelta | None = None
    """What the receiver asked for."""
    is_gone: bool = False
    """It wants nothing any more (410)."""
    is_throttling: bool = False
    """It, or what stands before it, has too much to do."""


def webhook_http_client() -> httpx2.AsyncClient:
    """The client for all deliveries; `HTTP(S)_PROXY` and `SSL_CERT_FILE` are honoured.

    Unlike the others it minds no body: the verdict is in an answer's head.
    """
    return httpx2.AsyncClient(
        verify=usual_trust(),
        timeout=_TIMEOUT,
        limits=_LIMITS,
        follow_redirects=False,
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
        headers={"Accept-Encoding": "identity", "User-Agent": f"token-broker/{__version__}"},
    )


class Delivery:
    """Posts messages to the one address."""

    def __init__(self, url: str, http: httpx2.AsyncClient) -> None:
        self._url = url
        self._http = http

    async def post(self, message: Message) -> Outcome:
        """Send it once; never raises for what the receiver or the way to it does."""
        try:
            async with (
                asyncio.timeout(DEADLINE.total_seconds()),
                self._http.stream(
                    "POST", self._url, content=message.body, headers=dict(message.headers)
                ) as answer,
            ):
                outcome = _outcome_of(answer)
                await _read_a_little(answer)
                return outcome
        except FAILURES as error:
            return Outcome(failure_reason(error))


def _outcome_of(answer: httpx2.Response) -> Outcome:
    if answer.is_success:
        return Outcome(None)
    return Outcome(
        f"http_{answer.status_code}",
        retry_after=retry_after(answer),
        is_gone=answer.status_code == 410,
        is_throttling=answer.status_code in _THROTTLING,
    )


async def _read_a_little(answer: httpx2.Response) -> None:
    """A short body is read, so that the connection can be used again; a long one is cut off.

    The verdict was in the head: nothing that happens here changes it.
    """
    left = _LITTLE
    with suppress(*FAILURES):
        async with asyncio.timeout(_LITTLE_SECONDS):
            async for chunk in answer.aiter_raw():
                left -= len(chunk)
                if left < 0:
                    return
