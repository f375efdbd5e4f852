"""The calls that move tokens: sending a browser to Google, exchange, refresh, revocation.

Each call stands alone: no token outlives it, and nothing is retried here.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import httpx2

from broker.clock import Clock
from broker.google.discovery import Discovery
from broker.google.errors import GoogleUnavailable, RequestRefused, classify_token_error
from broker.google.http import DEADLINE, SharedPool, at_google
from broker.google.json_answers import is_html
from broker.google.token_answers import TokenAnswer, read_token_answer
from broker.secret import Secret
from broker.secret_sources.client import OAuthClient
from broker.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from authlib.integrations.httpx_client import AsyncOAuth2Client

__all__ = ["GoogleOAuth", "TokenAnswer"]


class GoogleOAuth:
    """Google's OAuth endpoints as methods. Safe for concurrent calls, and for cancelling them."""

    def __init__(
        self,
        discovery: Discovery,
        http: httpx2.AsyncClient,
        clock: Clock,
        metrics: Metrics,
        *,
        deadline: timedelta = DEADLINE,
    ) -> None:
        self._discovery = discovery
        self._http = http
        self._clock = clock
        self._metrics = metrics
        self._deadline = deadline

    async def authorization_url(
        self,
        *,
        client_id: str,
        redirect_uri: str,
        scopes: tuple[str, ...],
        state: str,
        nonce: str,
        code_verifier: Secret,
        login_hint: str | None = None,
        prompt: str | None = None,
    ) -> str:
        """Where to send the browser; asks for offline access, with an S256 challenge (RFC 7636).

        Raises `GoogleUnavailable` while the endpoints are unknown.
        """
        from authlib.oauth2.client import OAuth2Client  # noqa: PLC0415  (see `serve_until`)

        endpoints = await self._discovery.endpoints()
        authlib = OAuth2Client(None, client_id, code_challenge_method="S256")
        url, _ = authlib.create_authorization_url(
            endpoints.authorization,
            state=state,
            code_verifier=code_verifier.reveal(),
            redirect_uri=redirect_uri,
            scope=" ".join(scopes),
            nonce=nonce,
            access_type="offline",
            include_granted_scopes="true",
            login_hint=login_hint,
            prompt=prompt,
        )
        return str(url)

    async def exchange_code(
        self, *, client: OAuthClient, code: Secret, code_verifier: Secret, redirect_uri: str
    ) -> TokenAnswer:
        """A code's tokens, once (RFC 6749 §4.1.3). Raises `GoogleError`."""
        endpoints = await self._discovery.endpoints()
        with self._one_call(client, "access_token_response") as call:
            async with at_google("token", self._metrics, self._deadline):
                await call.authlib.fetch_token(
                    endpoints.token,
                    grant_type="authorization_code",
                    code=code.reveal(),
                    code_verifier=code_verifier.reveal(),
                    redirect_uri=redirect_uri,
                )
            return call.answer()

    async def refresh(
        self, *, client: OAuthClient, refresh_token: Secret, scopes: tuple[str, ...] | None = None
    ) -> TokenAnswer:
        """A new access token (RFC 6749 §6), narrowed to `scopes` if given. Raises `GoogleError`.

        Whether the answer is as narrow as asked is for the caller to check.
        """
        if scopes is not None and not scopes:
            raise ValueError("no scope asked for: leaving it out would ask for all")
        endpoints = await self._discovery.endpoints()
        narrowing = {} if scopes is None else {"scope": " ".join(scopes)}
        with self._one_call(client, "refresh_token_response") as call:
            async with at_google("token", self._metrics, self._deadline):
                await call.authlib.refresh_token(
                    endpoints.token, refresh_token=refresh_token.reveal(), **narrowing
                )
            return call.answer()

    async def revoke(self, token: Secret) -> None:
        """Tell Google to forget a token and what hangs on it (RFC 7009); done twice is done.

        Raises `GoogleUnavailable` (tell again later) or `RequestRefused` (telling again is vain).
        """
        endpoints = await self._discovery.endpoints()
        if endpoints.revocation is None:
            raise RequestRefused("no_revocation_endpoint")
        async with at_google("revocation", self._metrics, self._deadline):
            # Google's endpoint takes the token alone, without client authentication, which
            # Authlib's own revocation call always adds.
            response = await self._http.post(endpoints.revocation, data={"token": token.reveal()})
            _check_revoked(response)

    async def aclose(self) -> None:
        """Close the connections to Google, also for the other parts that share them."""
        await self._http.aclose()

    @contextmanager
    def _one_call(self, client: OAuthClient, hook: str) -> Iterator["_OneCall"]:
        """An Authlib client for a single call, on the shared connections.

        One client for all calls would keep the last token in its `token` attribute, where another
        call could meet it. Making one takes some 50 µs, because it opens nothing of its own.
        """
        from authlib.integrations.httpx_client import (  # noqa: PLC0415  (see `serve_until`)
            AsyncOAuth2Client,
        )

        authlib = AsyncOAuth2Client(
            client.client_id,
            client.client_secret.reveal(),
            token_endpoint_auth_method="client_secret_post",  # noqa: S106  (a method's name)
            transport=SharedPool(self._http),
            headers=self._http.headers,
            timeout=self._http.timeout,
        )
        call = _OneCall(authlib, self._clock)
        authlib.register_compliance_hook(hook, call.read)
        try:
            yield call
        finally:
            # Breaks the circle that would keep the secrets in memory until a collection.
            authlib.compliance_hook.clear()
            authlib.token_auth.client = None


class _OneCall:
    """Catches the raw answer before Authlib parses it, and shows Authlib an empty one instead.

    Authlib would turn a 429 or a page into an exception without its headers, and keep the tokens.
    """

    def __init__(self, authlib: "AsyncOAuth2Client", clock: Clock) -> None:
        self.authlib = authlib
        self._sent_at = clock.now()
        self._answer: TokenAnswer | None = None

    def read(self, response: httpx2.Response) -> httpx2.Response:
        self._answer = read_token_answer(response, sent_at=self._sent_at)
        return httpx2.Response(200, json={"refresh_token": ""})

    def answer(self) -> TokenAnswer:
        assert self._answer is not None  # noqa: S101  (Authlib has called `read`)
        return self._answer


def _check_revoked(response: httpx2.Response) -> None:
    if response.is_success:
        # A portal's page with status 200 is not Google's word.
        if is_html(response):
            raise GoogleUnavailable("bad_answer")
        return
    error = classify_token_error(response)
    if isinstance(error, GoogleUnavailable):
        raise error
    if response.status_code != 400:
        # Google answers 200 or 400; anything else is a gateway's word, not Google's.
        raise GoogleUnavailable(f"http_{response.status_code}")
    if error.reason != "invalid_token":
        raise RequestRefused(error.reason)
