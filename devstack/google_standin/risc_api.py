"""Google's RISC API: its configuration, and the stream that a service account registers."""

import base64
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from starlette.responses import JSONResponse, Response

from broker.settings import is_loopback_host
from devstack.google_standin.account_endpoints import PUBLIC
from devstack.google_standin.context import StandinContext
from devstack.google_standin.endpoints import Call
from devstack.google_standin.keys import SigningKey
from devstack.google_standin.security_events import EventOrder, announce, issuer

AUDIENCE = "https://risc.googleapis.com/google.identity.risc.v1beta.RiscManagementService"
PUSH = "https://schemas.openid.net/secevent/risc/delivery-method/push"


def new_service_account(context: StandinContext, name: str = "risc-admin") -> dict[str, str]:
    """Create a service account; return its key file as the console downloads it."""
    email = f"{name}@demo.iam.gserviceaccount.com"
    key = SigningKey.generate()
    context.state.service_accounts[email] = {"kid": key.kid, "public_key": key.public_pem()}
    return {
        "type": "service_account",
        "project_id": "demo",
        "private_key_id": key.kid,
        "private_key": key.to_pem(),
        "client_email": email,
        "token_uri": f"{context.base_url}/token",
    }


class RiscApi:
    """The handlers."""

    def __init__(self, context: StandinContext) -> None:
        self._context = context

    def configuration(self, call: Call) -> Response:
        """The configuration document for receivers."""
        base = self._context.base_url
        document = {
            "issuer": issuer(self._context),
            "jwks_uri": f"{base}/oauth2/v3/certs",
            "delivery_methods_supported": [PUSH],
            "configuration_endpoint": f"{base}/v1beta/stream",
            "status_endpoint": f"{base}/v1beta/stream/status",
            "verification_endpoint": f"{base}/v1beta/stream:verify",
        }
        return JSONResponse(document, headers=PUBLIC)

    def update(self, call: Call) -> Response:
        """Create or replace the stream."""
        return self._for_service_account(call, self._update)

    def stream(self, call: Call) -> Response:
        return self._for_service_account(call, self._stream)

    def status(self, call: Call) -> Response:
        return self._for_service_account(call, self._status)

    def update_status(self, call: Call) -> Response:
        return self._for_service_account(call, self._update_status)

    def verify(self, call: Call) -> Response:
        """Send a test event."""
        return self._for_service_account(call, self._verify)

    def _for_service_account(
        self, call: Call, handler: Callable[[dict[str, Any]], Response]
    ) -> Response:
        if not self._is_service_account(call.request.headers.get("authorization", "")):
            return _error(401, "UNAUTHENTICATED", "Unauthorized.")
        try:
            body = json.loads(call.body or b"{}")
        except ValueError:
            body = None
        if not isinstance(body, dict):
            return _error(400, "INVALID_ARGUMENT", "The body is not a JSON object.")
        return handler(body)

    def _is_service_account(self, header: str) -> bool:
        scheme, _, token = header.partition(" ")
        try:
            signed, _, signature = token.rpartition(".")
            head, claims = (json.loads(_decoded(part)) for part in signed.split("."))
            account = self._context.state.service_accounts[claims["iss"]]
            key = serialization.load_pem_public_key(account["public_key"].encode())
            assert isinstance(key, rsa.RSAPublicKey)
            key.verify(_decoded(signature), signed.encode(), padding.PKCS1v15(), hashes.SHA256())
            now = self._context.clock.epoch()
            return (
                scheme.lower() == "bearer"
                and (head["alg"], head["kid"]) == ("RS256", account["kid"])
                and claims["sub"] == claims["iss"]
                and claims["aud"] == AUDIENCE
                and now - 300 < claims["exp"] - 3600 <= claims["iat"] < now + 300
            )
        except (InvalidSignature, KeyError, TypeError, ValueError):
            return False

    def _update(self, body: dict[str, Any]) -> Response:
        delivery, events = body.get("delivery"), body.get("events_requested")
        if not isinstance(delivery, dict) or not isinstance(events, list):
            return _error(
                400, "INVALID_ARGUMENT", "Stream configuration must contain delivery field."
            )
        if delivery.get("delivery_method") != PUSH:
            return _error(403, "PERMISSION_DENIED", "Unsupported delivery method.")
        url = urlsplit(str(delivery.get("url")))
        if url.scheme != "https" and not is_loopback_host(url.hostname):
            return _error(403, "PERMISSION_DENIED", "The delivery endpoint must be an HTTPS URL.")
        self._context.state.event_stream = {"delivery": delivery, "events_requested": events}
        return JSONResponse({})

    def _stream(self, _body: dict[str, Any]) -> Response:
        stream = self._context.state.event_stream
        if not stream:
            return _error(404, "NOT_FOUND", "Project has no RISC configuration.")
        clients = sorted(self._context.state.clients)
        return JSONResponse({"iss": issuer(self._context), "aud": clients, **stream})

    def _status(self, _body: dict[str, Any]) -> Response:
        if not self._context.state.event_stream:
            return _error(404, "NOT_FOUND", "Project has no RISC configuration.")
        return JSONResponse({"status": self._context.state.event_stream_status})

    def _update_status(self, body: dict[str, Any]) -> Response:
        if not self._context.state.event_stream:
            return _error(404, "NOT_FOUND", "Project has no existing RISC configuration.")
        if body.get("status") not in ("enabled", "disabled"):
            return _error(403, "PERMISSION_DENIED", "Unsupported status.")
        self._context.state.event_stream_status = body["status"]
        return JSONResponse({"status": body["status"]})

    def _verify(self, body: dict[str, Any]) -> Response:
        if not self._context.state.event_stream:
            return _error(404, "NOT_FOUND", "Project has no RISC configuration.")
        announce(self._context, EventOrder("verification", payload={"state": body.get("state")}))
        return JSONResponse({})


def _decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def _error(code: int, status: str, message: str) -> JSONResponse:
    return JSONResponse({"error": {"code": code, "message": message, "status": status}}, code)
