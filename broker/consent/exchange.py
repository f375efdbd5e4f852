"""Turns an authorization code into a consent: exchange, verified ID token, what was granted.

Stores nothing. Whatever fails, all that Google sent is dropped.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from broker.clock import Clock
from broker.consent.store import Trip
from broker.database.shares import KeyedSemaphore, current_share
from broker.google.errors import (
    ClientRefused,
    GoogleUnavailable,
    GrantRefused,
    IdTokenRefused,
)
from broker.google.http import DEADLINE
from broker.google.id_tokens import IdTokenVerifier
from broker.google.oauth import GoogleOAuth, TokenAnswer
from broker.grants.model import AccessToken
from broker.grants.store import Consent
from broker.secret import Secret
from broker.secret_sources.client import OAuthClient
from broker.secret_sources.current import CurrentClient

AT_ONCE = 48
"""Exchanges at Google at a time, of all browsers."""

OF_AN_ADDRESS_AT_ONCE = 16
"""Of those, for browsers of one address."""


class CodeExchange:
    """One exchange for each code, and a second one only if the client itself was the trouble."""

    def __init__(
        self, oauth: GoogleOAuth, id_tokens: IdTokenVerifier, current: CurrentClient, clock: Clock
    ) -> None:
        self._oauth = oauth
        self._id_tokens = id_tokens
        self._current = current
        self._clock = clock
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._shares = KeyedSemaphore()

    async def consent(self, code: Secret, trip: Trip) -> Consent:
        """What was granted on this trip, and by whom. Raises `GoogleError`."""
        client, answer = await self._exchange(code, trip)
        if answer.id_token is None:
            raise IdTokenRefused("missing")
        identity = await self._id_tokens.verify(
            answer.id_token,
            client_id=client.client_id,
            nonce=trip.transaction.nonce,
            access_token=answer.access_token,
        )
        # RFC 6749 §5.1: an answer without `scope` grants what was asked.
        scopes = answer.scopes or trip.transaction.scopes
        return Consent(
            user_id=trip.link.user_id,
            google_sub=identity.sub,
            email=identity.email,
            # None where nothing is said of it: then Google's word for the address is taken.
            is_email_theirs=identity.email_verified is not False,
            client_id=client.client_id,
            scopes=scopes,
            refresh_token=answer.refresh_token,
            access_token=AccessToken(
                answer.access_token, scopes, self._clock.now(), answer.expires_at
            ),
            exchanged_after=trip.taken_at,
        )

    async def _exchange(self, code: Secret, trip: Trip) -> tuple[OAuthClient, TokenAnswer]:
        client = self._current.client
        try:
            return client, await self._call(client, code, trip)
        except ClientRefused as refusal:
            renewed = await self._current.reread(client)
            # A code belongs to one client id: with another there is nothing to try.
            if not renewed or self._current.client.client_id != client.client_id:
                raise
            return await self._exchange_again(code, trip, refusal)

    async def _exchange_again(
        self, code: Secret, trip: Trip, refusal: ClientRefused
    ) -> tuple[OAuthClient, TokenAnswer]:
        client = self._current.client
        try:
            return client, await self._call(client, code, trip)
        except GrantRefused as spent:
            # The refused attempt used the code up, so that the cause is still the client.
            raise refusal from spent

    async def _call(self, client: OAuthClient, code: Secret, trip: Trip) -> TokenAnswer:
        async with self._turn():
            return await self._oauth.exchange_code(
                client=client,
                code=code,
                code_verifier=trip.transaction.code_verifier,
                redirect_uri=trip.link.redirect_uri,
            )

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """No address has all of the connections to Google. Raises `GoogleUnavailable`."""
        address = current_share().name
        try:
            async with asyncio.timeout(DEADLINE.total_seconds()):
                await self._shares.acquire(address, OF_AN_ADDRESS_AT_ONCE)
                try:
                    await self._slots.acquire()
                except BaseException:
                    self._shares.release(address)
                    raise
        except TimeoutError:
            raise GoogleUnavailable("busy") from None
        try:
            yield
        finally:
            self._slots.release()
            self._shares.release(address)
