"""Google's RISC API, which sets up the stream of security events for a project.

A service account of the same project calls it, with the role RISC Configuration Admin.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx2

from broker.clock import Clock
from broker.google.errors import GoogleUnavailable
from broker.google.http import map_transport_error
from broker.google.json_answers import json_object
from broker.google.security_events import EVENT_TYPES
from broker.google.service_account import ServiceAccount

RISC_API = "https://risc.googleapis.com/v1beta"
_AUDIENCE = "https://risc.googleapis.com/google.identity.risc.v1beta.RiscManagementService"
_PUSH = "https://schemas.openid.net/secevent/risc/delivery-method/push"
_LONGEST_MESSAGE = 300


class RiscApiError(Exception):
    """Google refuses; the message is Google's own, on one line, with its status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"Google answers {status}: {message}")
        self.status = status


@dataclass(frozen=True, slots=True)
class Stream:
    """The stream as Google has it."""

    receiver: str
    events: Sequence[str]
    """Event types that were asked for."""
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
        """Have all events that the broker knows sent to this address from now on."""
        stream = {
            "delivery": {"delivery_method": _PUSH, "url": receiver},
            "events_requested": list(EVENT_TYPES),
        }
        await self._call("POST", "/stream:update", stream)
        # A stream that was stopped once stays so until it is told otherwise.
        await self._call("POST", "/stream/status:update", {"status": "enabled"})

    async def stream(self) -> Stream:
        """How it is set up. Raises `RiscApiError` with 404 if there is none."""
        configured = await self._call("GET", "/stream")
        status = await self._call("GET", "/stream/status")
        delivery, events = configured.get("delivery"), configured.get("events_requested")
        url = delivery.get("url") if isinstance(delivery, dict) else None
        return Stream(
            receiver=_shown(url),
            events=[_shown(event) for event in events] if isinstance(events, list) else [],
            status=_shown(status.get("status")),
        )

    async def verify(self, state: str) -> None:
        """Have a test event sent that carries `state`."""
        await self._call("POST", "/stream:verify", {"state": state})

    async def _call(
        self, method: str, path: str, body: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        token = self._account.token(_AUDIENCE, self._clock)
        try:
            answer = await self._http.request(
                method,
                self._api + path,
                json=body,
                headers={"Authorization": f"Bearer {token.reveal()}"},
            )
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise map_transport_error(error) from None
        document = json_object(answer) or {}
        if answer.status_code >= 500 or answer.status_code == 429:
            raise GoogleUnavailable(f"http_{answer.status_code}")
        if answer.status_code != 200:
            raise RiscApiError(answer.status_code, _message(document))
        return document


def _message(document: dict[str, Any]) -> str:
    error = document.get("error")
    message = error.get("message") if isinstance(error, dict) else None
    return _shown(message) if isinstance(message, str) and message.strip() else "no reason given"


def _shown(text: object) -> str:
    """For a terminal: one line, nothing that steers it."""
    plain = " ".join(str(text).split())[:_LONGEST_MESSAGE]
    return "".join(character if character.isprintable() else "?" for character in plain)
