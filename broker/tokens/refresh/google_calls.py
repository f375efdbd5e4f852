"""Calls to Google's token endpoint for refreshes: bounded in number, and held back by the back-off,
the circuit breaker and a refused OAuth client.
"""

import asyncio
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from broker.clock import Clock
from broker.google.errors import ClientRefused, GoogleError, GoogleUnavailable
from broker.google.http import DEADLINE
from broker.google.oauth import GoogleOAuth, TokenResponse
from broker.secret import Secret
from broker.secret_sources.current_client import CurrentClient
from broker.secret_sources.source import OAuthClient
from broker.tokens.refresh.circuit_breaker import CircuitBreaker
from broker.tokens.refresh.refresh_backoff import RefreshBackoff, RefusalT
from broker.tokens.results import NotGranted, Outage, Unavailable, google_unavailable

CALL_TIMEOUT = DEADLINE + timedelta(seconds=2)
"""For one refresh at Google in all, with discovery and a second try with a new client."""

AT_ONCE = 224
"""Refreshes at Google at a time: more than the shares of two callers and of proactive refreshes;
consents and revocations need connections, too.
"""

_CLIENT_PAUSE = timedelta(seconds=5)
"""How long no refresh is sent for a client that Google refuses, unless the client changes."""

RefreshKey = tuple[UUID, str]
"""A grant's id and a scope set."""


@dataclass(frozen=True, slots=True)
class GoogleAnswer:
    """Google's answer to a refresh, and the OAuth client that sent it."""

    client: OAuthClient
    answer: TokenResponse | GoogleError


class RefreshCalls:
    """Sends refreshes to Google, and knows when none should be sent."""

    def __init__(self, *, google: GoogleOAuth, client: CurrentClient, clock: Clock) -> None:
        self._google = google
        self._client = client
        self._clock = clock
        self._backoff = RefreshBackoff(clock)
        self._breaker = CircuitBreaker(clock)
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._refused_client: OAuthClient | None = None
        self._refused_until: datetime = clock.now()

    def refusal(self, key: RefreshKey) -> NotGranted | Unavailable | None:
        """Return the answer while Google, or the client, is known to fail; None otherwise."""
        client_pause = self._client_pause_left()
        if client_pause > timedelta(0):
            return Unavailable(Outage.CLIENT, client_pause)
        grant_id, _ = key
        refusal = self._backoff.refusal(grant_id) or self._backoff.refusal(key)
        if refusal is not None:
            return refusal
        if not self._backoff.has_failed_recently(grant_id):
            return google_unavailable() if self._breaker.refuses_probes else None
        if seconds := self._breaker.seconds_left():
            return google_unavailable(retry_after=timedelta(seconds=seconds))
        return None

    def pause_left(self, key: RefreshKey) -> timedelta:
        """Return how long no refresh should be sent for this key, at any replica."""
        grant_id, _ = key
        return max(
            self._backoff.time_left(grant_id),
            self._backoff.time_left(key),
            self._client_pause_left(),
        )

    def _client_pause_left(self) -> timedelta:
        if self._refused_client is None or self._refused_client is not self._client.client:
            return timedelta(0)
        return self._refused_until - self._clock.now()

    async def refresh(
        self, grant_id: UUID, refresh_token: Secret, scopes: tuple[str, ...]
    ) -> GoogleAnswer:
        """Send a refresh. If Google refuses the client and it has a new version, send it again."""
        until = asyncio.get_running_loop().time() + CALL_TIMEOUT.total_seconds()
        is_probe = not self._backoff.has_failed_recently(grant_id)
        try:
            async with asyncio.timeout_at(until) as waiting, self._slots:
                if is_probe and not await self._breaker.may_probe():
                    return GoogleAnswer(self._client.client, GoogleUnavailable("circuit_open"))
                waiting.reschedule(None)
                with self._breaker.probing(grant_id) if is_probe else nullcontext():
                    result = await self._call_until(until, refresh_token, scopes)
                    self._learn(grant_id, result.answer)
                    return result
        except TimeoutError:
            # No slot was free in time: this says nothing about Google.
            return GoogleAnswer(self._client.client, GoogleUnavailable("busy"))

    async def _call_until(
        self, until: float, refresh_token: Secret, scopes: tuple[str, ...]
    ) -> GoogleAnswer:
        client = self._client.client
        try:
            async with asyncio.timeout_at(until):
                answer = await self._call(client, refresh_token, scopes)
                if isinstance(answer, ClientRefused) and await self._client.reread(client):
                    client = self._client.client
                    answer = await self._call(client, refresh_token, scopes)
                return GoogleAnswer(client, answer)
        except TimeoutError:
            return GoogleAnswer(client, GoogleUnavailable("timeout"))

    async def _call(
        self, client: OAuthClient, refresh_token: Secret, scopes: tuple[str, ...]
    ) -> TokenResponse | GoogleError:
        try:
            return await self._google.refresh(
                client=client, refresh_token=refresh_token, scopes=scopes
            )
        except GoogleError as error:
            return error

    def _learn(self, grant_id: UUID, answer: TokenResponse | GoogleError) -> None:
        if not isinstance(answer, GoogleUnavailable):
            self._breaker.succeeded()
            self._backoff.succeeded(grant_id)
        elif answer.is_general:
            self._breaker.failed(grant_id)

    # The effect of the answers on later calls.

    def back_off(
        self, key: RefreshKey | UUID, refusal: RefusalT, *, retry_after: timedelta | None = None
    ) -> RefusalT:
        """Begin or lengthen the pause of a grant, or of a grant and scope set.

        Returns the answer until the pause is over. `retry_after` is what Google requests.
        """
        return self._backoff.failed(key, refusal, retry_after=retry_after)

    def pause_client(self, client: OAuthClient) -> Unavailable:
        """Hold back all refreshes of a client that Google refuses; return the answer."""
        self._refused_client = client
        self._refused_until = self._clock.now() + _CLIENT_PAUSE
        return Unavailable(Outage.CLIENT, _CLIENT_PAUSE)

    def succeeded(self, key: RefreshKey) -> None:
        """End the pause of a grant and scope set."""
        self._backoff.succeeded(key)

    def client_succeeded(self) -> None:
        """End the pause of the client."""
        self._refused_client = None
