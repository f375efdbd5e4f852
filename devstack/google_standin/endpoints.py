"""An endpoint of the stand-in: reads and records a request, applies a planned fault, and answers.

Each endpoint has a handler that makes the normal answer.
"""

import asyncio
import base64
import binascii
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from devstack.google_standin.context import StandinContext
from devstack.google_standin.faults import Fault
from devstack.google_standin.model import Account
from devstack.google_standin.recording import RecordedRequest, monotonic, without_secrets

NO_STORE = {
    "Cache-Control": "no-cache, no-store, max-age=0, must-revalidate",
    "Pragma": "no-cache",
    "X-Content-Type-Options": "nosniff",
}


@dataclass
class Call:
    """One request, for a handler."""

    request: Request
    parameters: dict[str, str]
    """Of the query and the form; the form takes precedence."""
    body: bytes
    client_id: str | None
    client_secret: str | None
    client_auth: str | None
    fault: Fault | None = None


Handler = Callable[[Call], Response]


def oauth_error(
    code: str, status: int = 400, description: str | None = None, subtype: str | None = None
) -> JSONResponse:
    """Return an error of RFC 6749 §5.2, with Google's `error_subtype`."""
    body = {"error": code, "error_description": description or "Bad Request"}
    if subtype is not None:
        body["error_subtype"] = subtype
    return JSONResponse(body, status, headers=NO_STORE)


class OpenConnections:
    """The sockets behind the requests, so that a fault can close one without an answer.

    Keyed by the peer's address, which a request knows.
    """

    def __init__(self) -> None:
        self._transports: dict[tuple[str, int], asyncio.Transport] = {}

    def close(self, scope: Scope) -> None:
        """Close the request's connection, after what was written so far."""
        transport = self._transports.get(tuple(scope["client"]))
        if transport is not None:
            transport.close()

    def close_all(self) -> None:
        for transport in list(self._transports.values()):
            transport.close()

    def protocol(self) -> type[asyncio.Protocol]:
        """Return an HTTP protocol for uvicorn that reports its connections to this object."""
        transports = self._transports

        class ReportingProtocol(HttpToolsProtocol):
            def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
                super().connection_made(transport)
                if self.client is not None:
                    transports[self.client] = transport

            def connection_lost(self, exc: Exception | None) -> None:
                if self.client is not None:
                    transports.pop(self.client, None)
                super().connection_lost(exc)

        return ReportingProtocol


class Endpoint:
    """An ASGI application around one handler."""

    def __init__(
        self, name: str, handler: Handler, context: StandinContext, connections: OpenConnections
    ) -> None:
        self._name = name
        self._handler = handler
        self._context = context
        self._connections = connections

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        call = await _read(request)
        entry, call.fault = self._admit(call)
        response = await self._answer(call)
        if response is None:
            self._context.requests.finish(entry, None)
            await self._hang_up(call)
        elif call.fault is not None and call.fault.kind == "half":
            await _send_half(response, send)
            self._context.requests.finish(entry, None)
            await self._hang_up(call)
        else:
            await response(scope, receive, send)
            self._context.requests.finish(entry, response.status_code)

    def _admit(self, call: Call) -> tuple[RecordedRequest, Fault | None]:
        with self._context.state.lock:
            account = _account_of(self._context, call)
        grant_type = call.parameters.get("grant_type")
        fault = self._context.faults.take(
            self._name, account=account, grant_type=grant_type, client_id=call.client_id
        )
        entry = RecordedRequest(
            endpoint=self._name,
            method=call.request.method,
            parameters=without_secrets(call.parameters),
            client_id=call.client_id,
            client_auth=call.client_auth,
            account=account.sub if account else None,
            grant_type=grant_type,
            started=monotonic(),
            fault=fault.kind if fault else None,
        )
        return self._context.requests.add(entry), fault

    async def _answer(self, call: Call) -> Response | None:
        """Return the response, or None to close the connection without one."""
        fault = call.fault
        if fault is None:
            return self._handle(call)
        details = fault.details
        if fault.kind == "drop":
            return None
        if fault.kind == "silence":
            await _until_gone(call.request.receive, details["seconds"])
            return None
        if fault.kind == "http":
            return Response(details["body"], details["status"], details["headers"])
        if fault.kind == "error" and self._name != "authorize":
            return _planned_error(fault)
        if fault.kind in ("delay", "hold"):
            return await self._answer_late(call, fault)
        if fault.kind == "rotate" and details.get("hold") is not None:
            response = self._handle(call)
            await self._context.holds.wait(details["hold"])
            return response
        return _edited(self._handle(call), fault) if fault.kind == "edit" else self._handle(call)

    async def _answer_late(self, call: Call, fault: Fault) -> Response:
        response = self._handle(call) if fault.details["after"] else None
        if fault.kind == "hold":
            await self._context.holds.wait(fault.details["name"])
        else:
            await self._context.holds.wait("delay", at_most=fault.details["seconds"])
        return response or self._handle(call)

    def _handle(self, call: Call) -> Response:
        with self._context.state.lock:
            response = self._handler(call)
            if call.request.method == "POST":
                self._context.state.save()
        return response

    async def _hang_up(self, call: Call) -> None:
        self._connections.close(call.request.scope)
        # The server would treat an early return as a crash and answer 500.
        await _until_gone(call.request.receive, 5)


async def _send_half(response: Response, send: Send) -> None:
    """Send half of the body that the headers announce."""
    body = bytes(response.body)
    start = {"status": response.status_code, "headers": response.raw_headers}
    await send({"type": "http.response.start", **start})
    await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})


async def _read(request: Request) -> Call:
    body = await request.body()
    parameters = dict(request.query_params)
    if request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        parameters |= dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))
    client_id, client_secret = parameters.get("client_id"), parameters.get("client_secret")
    client_auth = "client_secret_post" if client_secret is not None else None
    basic = _basic_credentials(request.headers.get("authorization", ""))
    if basic is not None:
        (client_id, client_secret), client_auth = basic, "client_secret_basic"
    return Call(request, parameters, body, client_id, client_secret, client_auth)


def _basic_credentials(header: str) -> tuple[str, str] | None:
    """Decode HTTP Basic credentials, whose parts are form-encoded (RFC 6749 §2.3.1)."""
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        name, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return ("", "")
    return unquote(name), unquote(password)


def _account_of(context: StandinContext, call: Call) -> Account | None:
    """Return the account that a code, a token or a hint of the request belongs to."""
    state, parameters = context.state, call.parameters
    code = state.codes.get(parameters.get("code", ""))
    bearer = call.request.headers.get("authorization", "").removeprefix("Bearer ")
    value = parameters.get("refresh_token") or parameters.get("token") or bearer
    token = state.refresh_tokens.get(value) or state.access_tokens.get(value)
    if code is not None:
        return state.accounts.get(code.sub)
    if token is not None:
        return state.accounts.get(token.sub)
    hint = parameters.get("login_hint")
    return state.find_account(hint) if hint else None


async def _until_gone(receive: Receive, seconds: float) -> None:
    """Wait until the client disconnects, or for this long."""

    async def disconnected() -> None:
        while (await receive())["type"] != "http.disconnect":
            continue

    try:
        await asyncio.wait_for(disconnected(), seconds)
    except TimeoutError:
        return


def _planned_error(fault: Fault) -> Response:
    code, status = fault.details["code"], fault.details["status"]
    return oauth_error(code, status or 400, fault.details["description"], fault.details["subtype"])


def _edited(response: Response, fault: Fault) -> Response:
    """Remove or replace members of a JSON answer; return any other answer unchanged."""
    if response.status_code != 200 or response.media_type != "application/json":
        return response
    document: dict[str, Any] = json.loads(bytes(response.body))
    for name in fault.details.get("remove", ()):
        document.pop(name, None)
    document |= fault.details.get("set", {})
    return JSONResponse(document, headers=NO_STORE)
