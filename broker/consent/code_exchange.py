"""Exchanges an authorization code for a consent: tokens, verified ID token, granted scopes.

Stores nothing. If a check fails, everything that Google sent is dropped.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from broker.clock import Clock
from broker.consent.authorization_requests import ConsumedRequest
from broker.database.shares import KeyedSemaphore, current_share
from broker.google.discovery import Discovery
from broker.google.errors import (
    ClientRefused,
    GoogleUnavailable,
    GrantRefused,
    IdTokenRefused,
)
from broker.google.http import DEADLINE
from broker.google.id_tokens import IdTokenVerifier
from broker.google.oauth import GoogleOAuth, TokenResponse
from broker.grants.model import AccessToken, Consent
from broker.secret import Secret
from broker.secret_sources.current_client import CurrentClient
from broker.secret_sources.source import OAuthClient

CONCURRENT_EXCHANGES = 48
"""Of all browsers together."""

CONCURRENT_EXCHANGES_PER_ADDRESS = 16


class CodeExchange:
    """Exchanges each code once, and a second time only if Google refused the OAuth client."""

    def __init__(
        self,
        *,
        oauth: GoogleOAuth,
        id_tokens: IdTokenVerifier,
        discovery: Discovery,
        client: CurrentClient,
        clock: Clock,
    ) -> None:
        self._oauth = oauth
        self._id_tokens = id_tokens
        self._discovery = discovery
        self._client = client
        self._clock = clock
        self._slots = asyncio.Semaphore(CONCURRENT_EXCHANGES)
        self._slots_by_address = KeyedSemaphore()

    async def accepts_issuer(self, unverified_iss: str | None) -> bool:
        """True if a callback with this `iss` may come from Google (RFC 9207 §2.4).

        To be checked before the code is sent anywhere. Raises `GoogleUnavailable`.
        """
        return (await self._discovery.endpoints()).accepts_issuer(unverified_iss)

    async def exchange(self, code: Secret, consumed: ConsumedRequest) -> Consent:
        """Return what was granted, and by which account. Raises `GoogleError`."""
        client, answer = await self._tokens(code, consumed)
        if answer.id_token is None:
            raise IdTokenRefused("missing")
        identity = await self._id_tokens.verify(
            answer.id_token,
            client_id=client.client_id,
            nonce=consumed.request.nonce,
            access_token=answer.access_token,
        )
        # RFC 6749 §5.1: a response without `scope` grants what was requested.
        scopes = answer.scopes or consumed.request.scopes
        return Consent(
            user_id=consumed.link.user_id,
            google_sub=identity.sub,
            email=identity.email,
            # None: Google does not say. Then the address counts as verified.
            is_email_verified=identity.email_verified is not False,
            client_id=client.client_id,
            scopes=scopes,
            refresh_token=answer.refresh_token,
            access_token=AccessToken(
                answer.access_token, scopes, self._clock.now(), answer.expires_at
            ),
            exchanged_after=consumed.consumed_at,
        )

    async def _tokens(
        self, code: Secret, consumed: ConsumedRequest
    ) -> tuple[OAuthClient, TokenResponse]:
        client = self._client.client
        try:
            return client, await self._call(client, code, consumed)
        except ClientRefused as refusal:
            is_newer = await self._client.reread(client)
            # A code belongs to one client id: with another, a retry cannot succeed.
            if not is_newer or self._client.client.client_id != client.client_id:
                raise
            return await self._retry(code, consumed, refusal)

    async def _retry(
        self, code: Secret, consumed: ConsumedRequest, refusal: ClientRefused
    ) -> tuple[OAuthClient, TokenResponse]:
        client = self._client.client
        try:
            return client, await self._call(client, code, consumed)
        except GrantRefused as spent:
            # The refused attempt used the code up, so the cause is still the client.
            raise refusal from spent

    async def _call(
        self, client: OAuthClient, code: Secret, consumed: ConsumedRequest
    ) -> TokenResponse:
        async with self._slot():
            return await self._oauth.exchange_code(
                client=client,
                code=code,
                code_verifier=consumed.request.code_verifier,
                redirect_uri=consumed.link.redirect_uri,
            )

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        """Keep one address from using all connections to Google. Raises `GoogleUnavailable`."""
        address = current_share().name
        try:
            async with asyncio.timeout(DEADLINE.total_seconds()):
                await self._slots_by_address.acquire(address, CONCURRENT_EXCHANGES_PER_ADDRESS)
                try:
                    await self._slots.acquire()
                except BaseException:
                    self._slots_by_address.release(address)
                    raise
        except TimeoutError:
            raise GoogleUnavailable("busy") from None
        try:
            yield
        finally:
            self._slots.release()
            self._slots_by_address.release(address)
