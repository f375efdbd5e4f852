"""Client of Google's RISC API, which configures the stream of security events of a project.

A service account of the same project authenticates the calls; it needs the role RISC Configuration
Admin. Its private key is used for signatures only, and no error quotes its file.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx2
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import RSAKey

from broker.clock import Clock
from broker.google.errors import GoogleUnavailable
from broker.google.http import map_transport_error
from broker.google.security_events import EVENT_TYPES
from broker.outbound.responses import json_object
from broker.secret import Secret

RISC_API = "https://risc.googleapis.com/v1beta"
LONGEST_KEY_FILE = 64 * 1024

_AUDIENCE = "https://risc.googleapis.com/google.identity.risc.v1beta.RiscManagementService"
_PUSH = "https://schemas.openid.net/secevent/risc/delivery-method/push"
_LONGEST_MESSAGE = 300
_TOKEN_LIFETIME = timedelta(hours=1)
"""Google demands exactly this."""


class RiscApiError(Exception):
    """Google refuses; contains Google's own message, on one line, and its status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"Google answers {status}: {message}")
        self.status = status


class ServiceAccountError(Exception):
    """The key file is invalid; the message says why."""


@dataclass(frozen=True)
class ServiceAccount:
    """A service account and its key."""

    email: str
    key_id: str
    private_key: Secret

    def token(self, audience: str, clock: Clock) -> Secret:
        """Return a JWT that Google accepts as an access token. Raises `ServiceAccountError`."""
        now = int(clock.epoch())
        claims = {
            "iss": self.email,
            "sub": self.email,
            "aud": audience,
            "iat": now,
            "exp": now + int(_TOKEN_LIFETIME.total_seconds()),
        }
        header = {"alg": "RS256", "typ": "JWT", "kid": self.key_id}
        try:
            key = RSAKey.import_key(self.private_key.reveal())
            return Secret(jwt.encode(header, claims, key))
        except (JoseError, ValueError, TypeError, AttributeError):
            # Not chained: the error may quote the key.
            raise ServiceAccountError("its private_key is no RSA key in PEM") from None


@dataclass(frozen=True, slots=True)
class Stream:
    """The stream as Google has it."""

    receiver: str
    events: Sequence[str]
    """The requested event types."""
    status: str
    """`enabled` or `disabled`."""


class RiscManagement:
    """All methods raise `RiscApiError`, `GoogleUnavailable` and `ServiceAccountError`."""

    def __init__(
        self, http: httpx2.AsyncClient, account: ServiceAccount, clock: Clock, *, api: str
    ) -> None:
        self._http = http
        self._account = account
        self._clock = clock
        self._api = api.rstrip("/")

    async def register(self, receiver: str) -> None:
        """Have Google send all events that the broker understands to this URL."""
        stream = {
            "delivery": {"delivery_method": _PUSH, "url": receiver},
            "events_requested": list(EVENT_TYPES),
        }
        await self._call("POST", "/stream:update", stream)
        # A disabled stream stays disabled until it is enabled again.
        await self._call("POST", "/stream/status:update", {"status": "enabled"})

    async def stream(self) -> Stream:
        """Return the stream's configuration. Raises `RiscApiError` with 404 if there is none."""
        configured = await self._call("GET", "/stream")
        status = await self._call("GET", "/stream/status")
        delivery, events = configured.get("delivery"), configured.get("events_requested")
        url = delivery.get("url") if isinstance(delivery, dict) else None
        return Stream(
            receiver=_printable(url),
            events=[_printable(event) for event in events] if isinstance(events, list) else [],
            status=_printable(status.get("status")),
        )

    async def verify(self, state: str) -> None:
        """Have Google send a test event that carries `state`."""
        await self._call("POST", "/stream:verify", {"state": state})

    async def _call(
        self, method: str, path: str, body: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        token = self._account.token(_AUDIENCE, self._clock)
        try:
            response = await self._http.request(
                method,
                self._api + path,
                json=body,
                headers={"Authorization": f"Bearer {token.reveal()}"},
            )
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise map_transport_error(error) from None
        document = json_object(response) or {}
        if response.status_code >= 500 or response.status_code == 429:
            raise GoogleUnavailable(f"http_{response.status_code}")
        if response.status_code != 200:
            raise RiscApiError(response.status_code, _message(document))
        return document


def read_service_account(text: str) -> ServiceAccount:
    """Parse the key file that Google's console downloads. Raises `ServiceAccountError`."""
    if len(text) > LONGEST_KEY_FILE:
        raise ServiceAccountError("it is too long")
    try:
        document: object = json.loads(text)
    except (ValueError, RecursionError):
        raise ServiceAccountError("it is not JSON") from None
    if not isinstance(document, dict) or document.get("type") != "service_account":
        raise ServiceAccountError(
            "it is no service account's key (create one in the console: JSON key type)"
        )
    for name in ("client_email", "private_key_id", "private_key"):
        if not isinstance(document.get(name), str) or not document[name]:
            raise ServiceAccountError(f"it has no {name}")
    return ServiceAccount(
        document["client_email"], document["private_key_id"], Secret(document["private_key"])
    )


def _message(document: dict[str, Any]) -> str:
    error = document.get("error")
    message = error.get("message") if isinstance(error, dict) else None
    return (
        _printable(message) if isinstance(message, str) and message.strip() else "no reason given"
    )


def _printable(text: object) -> str:
    """Return a text fit for a terminal: one line, without control characters."""
    plain = " ".join(str(text).split())[:_LONGEST_MESSAGE]
    return "".join(character if character.isprintable() else "?" for character in plain)
