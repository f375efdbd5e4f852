"""`POST /auth/google/risc`: receives security events by RFC 8935 push delivery.

The sender and the media type are not checked: the signature proves both.
"""

import asyncio
import json
from typing import Final

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from broker.database.database import StorageUnavailable
from broker.google.errors import GoogleUnavailable, SecurityEventRefused
from broker.google.security_events import LONGEST_EVENT_TOKEN, SecurityEventVerifier
from broker.security_events.inbox import SecurityEventInbox
from broker.web.bodies import read_within
from broker.web.problems import NO_STORE, Problem

EVENTS_PATH: Final = "/auth/google/risc"

BODY_SECONDS = 10.0
"""Time limit for the few kilobytes of a token to arrive."""

_RETRY_SECONDS = 5

_ERRORS = {
    "unknown_key": ("invalid_key", "The key is not one of Google's."),
    "alg": ("invalid_key", "The signature must be RS256."),
    "typ": ("invalid_request", "The typ is not that of a security event token."),
    "crit": ("invalid_request", "A critical header parameter is not supported."),
    "bad_signature": ("authentication_failed", "The signature is invalid."),
    "iss": ("invalid_issuer", "The issuer is not Google."),
    "aud": ("invalid_audience", "The audience is not one of this broker's OAuth clients."),
    "jti": ("invalid_request", "The jti is missing or malformed."),
    "iat": ("invalid_request", "The iat is missing, too old or in the future."),
    "events": ("invalid_request", "The events are missing or malformed."),
    "too_long": ("invalid_request", "The token is too long."),
    "too_slow": ("invalid_request", "The token did not arrive in time."),
}
"""The error code of RFC 8935 §2.4 and its description, for each refusal."""


def event_routes(verifier: SecurityEventVerifier, inbox: SecurityEventInbox) -> list[Route]:
    """Return the route, for the public listener."""

    async def receive(request: Request) -> Response:
        request_id = getattr(request.state, "request_id", None)
        try:
            token = await verifier.verify(await _read_token(request))
        except SecurityEventRefused as error:
            inbox.records.refused(error.reason, request_id=request_id)
            return _refusal(error.reason)
        except (GoogleUnavailable, StorageUnavailable) as error:
            inbox.records.unverifiable(error)
            return _later()
        except ClientDisconnect:
            return Response(status_code=400)
        try:
            await inbox.receive(token, request_id=request_id)
        except StorageUnavailable:
            return _later()
        return Response(status_code=202, headers=NO_STORE)

    return [Route(EVENTS_PATH, receive, methods=["POST"])]


def _later() -> Response:
    """503: Google sends the token again."""
    return Response(status_code=503, headers={**NO_STORE, "Retry-After": str(_RETRY_SECONDS)})


async def _read_token(request: Request) -> str:
    """Return the body, unverified. Raises `SecurityEventRefused`."""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            body = await read_within(request, LONGEST_EVENT_TOKEN)
    except Problem:
        raise SecurityEventRefused("too_long") from None
    except TimeoutError:
        raise SecurityEventRefused("too_slow") from None
    return body.decode("ascii", "replace").strip()


def _refusal(reason: str) -> Response:
    code, description = _ERRORS.get(reason, ("invalid_request", "The body is not a signed token."))
    return Response(
        json.dumps({"err": code, "description": description}),
        status_code=413 if reason == "too_long" else 400,
        headers={**NO_STORE, "Content-Language": "en"},
        media_type="application/json",
    )
