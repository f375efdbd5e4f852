"""Google's OAuth endpoints: authorization URL, code exchange, refresh, revocation.

Authlib prepares the requests; the broker sends them and reads the responses itself. No token
outlives its call, and nothing is retried here.
"""

from datetime import timedelta

import httpx2

from broker.clock import Clock
from broker.google.discovery import Discovery
from broker.google.errors import GoogleUnavailable, RequestRefused, classify_token_error
from broker.google.http import DEADLINE, google_call
from broker.google.token_response import TokenResponse, read_token_response
from broker.outbound.responses import is_html
from broker.secret import Secret
from broker.secret_sources.source import OAuthClient
from broker.telemetry.metrics import Metrics

__all__ = ["GoogleOAuth", "TokenResponse"]


class GoogleOAuth:
    """The OAuth endpoints as methods. Safe for concurrent calls and for their cancellation."""

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
        """Return the URL of an authorization request for offline access, with an S256 challenge.

        RFC 6749 §4.1.1, RFC 7636. Raises `GoogleUnavailable` while the endpoints are unknown.
        """
        from authlib.oauth2 import OAuth2Client  # noqa: PLC0415  (see `serve_until`)

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
    ) -> TokenResponse:
        """Exchange a one-time code for tokens (RFC 6749 §4.1.3). Raises `GoogleError`."""
        return await self._request_token(
            client,
            "authorization_code",
            code=code.reveal(),
            code_verifier=code_verifier.reveal(),
            redirect_uri=redirect_uri,
        )

    async def refresh(
        self, *, client: OAuthClient, refresh_token: Secret, scopes: tuple[str, ...] | None = None
    ) -> TokenResponse:
        """Fetch an access token (RFC 6749 §6), narrowed to `scopes` if given. Raises `GoogleError`.

        The caller checks that the response is as narrow as requested.
        """
        if scopes is not None and not scopes:
            raise ValueError("no scope requested: a request without scopes would ask for all")
        narrowing = {} if scopes is None else {"scope": " ".join(scopes)}
        return await self._request_token(
            client, "refresh_token", refresh_token=refresh_token.reveal(), **narrowing
        )

    async def revoke(self, token: Secret) -> None:
        """Revoke a token and its grant at Google (RFC 7009); a second time changes nothing.

        Raises `GoogleUnavailable` (retry later) or `RequestRefused` (a retry cannot succeed).
        """
        endpoints = await self._discovery.endpoints()
        if endpoints.revocation is None:
            raise RequestRefused("no_revocation_endpoint")
        async with google_call("revocation", self._metrics, self._deadline):
            # Google's endpoint takes the token alone, without the client authentication that
            # Authlib always adds.
            response = await self._http.post(endpoints.revocation, data={"token": token.reveal()})
            _check_revoked(response)

    async def aclose(self) -> None:
        """Close the connections to Google, which other parts of the process share."""
        await self._http.aclose()

    async def _request_token(
        self, client: OAuthClient, grant_type: str, **parameters: str
    ) -> TokenResponse:
        """Send a token request, once.

        Only Authlib's request side is used. Its session would parse the response before the broker
        sees it: a 429 or an HTML page becomes an exception without its headers, and the last token
        stays in the session's `token` attribute.
        """
        from authlib.oauth2 import ClientAuth  # noqa: PLC0415  (see `serve_until`)
        from authlib.oauth2.client import DEFAULT_HEADERS  # noqa: PLC0415
        from authlib.oauth2.rfc6749.parameters import prepare_token_request  # noqa: PLC0415

        endpoints = await self._discovery.endpoints()
        authentication = ClientAuth(
            client.client_id, client.client_secret.reveal(), "client_secret_post"
        )
        url, headers, body = authentication.prepare(
            "POST",
            endpoints.token,
            dict(DEFAULT_HEADERS),
            prepare_token_request(grant_type, **parameters),
        )
        sent_at = self._clock.now()
        async with google_call("token", self._metrics, self._deadline):
            response = await self._http.post(url, content=body, headers=headers)
            return read_token_response(response, sent_at=sent_at)


def _check_revoked(response: httpx2.Response) -> None:
    if response.is_success:
        # A captive portal's page with status 200 is not Google's response.
        if is_html(response):
            raise GoogleUnavailable("bad_answer")
        return
    error = classify_token_error(response)
    if isinstance(error, GoogleUnavailable):
        raise error
    if response.status_code != 400:
        # Google answers 200 or 400; any other status is a gateway's.
        raise GoogleUnavailable(f"http_{response.status_code}")
    if error.reason != "invalid_token":
        raise RequestRefused(error.reason)
