"""A Google of a few lines: it answers as the test says, and keeps the requests."""

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

import httpx2

from broker.google.discovery import Discovery
from broker.google.http import google_http_client
from broker.google.id_tokens import IdTokenVerifier
from broker.google.oauth import GoogleOAuth
from broker.telemetry.metrics import Metrics
from tests.support.clock import ManualClock

ORIGIN = "https://google.test"
DISCOVERY_URL = f"{ORIGIN}/discovery"
DOCUMENT: dict[str, Any] = {
    "issuer": "https://accounts.google.com",
    "authorization_endpoint": f"{ORIGIN}/authorize",
    "token_endpoint": f"{ORIGIN}/token",
    "revocation_endpoint": f"{ORIGIN}/revoke",
    "jwks_uri": f"{ORIGIN}/jwks",
    "userinfo_endpoint": f"{ORIGIN}/userinfo",
}
TOKENS: dict[str, Any] = {
    "access_token": "ya29.fresh",
    "expires_in": 3599,
    "token_type": "Bearer",
    "scope": "openid https://www.googleapis.com/auth/userinfo.email",
}

Answer = httpx2.Response | Exception | Callable[[httpx2.Request], Any]


class ScriptedGoogle:
    """An answer per path. An exception is raised; a callable makes the answer from the request."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {
            "/discovery": httpx2.Response(200, json=DOCUMENT),
            "/token": httpx2.Response(200, json=TOKENS),
            "/revoke": httpx2.Response(200, json={}),
        }
        self.requests: list[httpx2.Request] = []
        self.clock = ManualClock()
        self.metrics = Metrics()
        self.http = google_http_client(httpx2.MockTransport(self._answer))
        self.discovery = Discovery(DISCOVERY_URL, self.http, self.clock, self.metrics)
        self.oauth = GoogleOAuth(self.discovery, self.http, self.clock, self.metrics)
        self.verifier = IdTokenVerifier(self.discovery, self.http, self.clock, self.metrics)

    def at(self, path: str) -> list[httpx2.Request]:
        """Return the requests to one path."""
        return [request for request in self.requests if request.url.path == path]

    def form(self, path: str) -> dict[str, str]:
        """Return the fields of the last form sent to a path."""
        fields = parse_qs(self.at(path)[-1].content.decode(), strict_parsing=True)
        assert all(len(values) == 1 for values in fields.values())
        return {name: values[0] for name, values in fields.items()}

    def counted(self, endpoint: str, outcome: str) -> float:
        """Return the counted calls with this outcome."""
        labels = {"endpoint": endpoint, "outcome": outcome}
        return self.metrics.registry.get_sample_value("broker_google_requests_total", labels) or 0

    async def _answer(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        answer = self.answers[request.url.path]
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, httpx2.Response):
            # A response can be read only once, so that each request needs its own.
            return httpx2.Response(
                answer.status_code, headers=answer.headers, stream=_Body(answer.content)
            )
        made = answer(request)
        return made if isinstance(made, httpx2.Response) else await made


class _Body(httpx2.AsyncByteStream):
    def __init__(self, content: bytes) -> None:
        self._content = content

    async def __aiter__(self) -> Any:
        yield self._content


def oauth_error(code: object, status: int = 400, **members: object) -> httpx2.Response:
    """Return an error response (RFC 6749 §5.2)."""
    return httpx2.Response(status, json={"error": code, **members})


def body(text: str, media_type: str = "application/json", status: int = 200) -> httpx2.Response:
    """Return any text with any media type."""
    return httpx2.Response(status, content=text.encode(), headers={"Content-Type": media_type})


def tokens(**changes: object) -> httpx2.Response:
    """Return a valid token response with other values; `...` removes one."""
    document = {name: v for name, v in (TOKENS | changes).items() if v is not ...}
    return body(json.dumps(document))
