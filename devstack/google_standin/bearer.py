"""Bearer tokens at the APIs, and refusals in the JSON shape that Google's client libraries read."""

from collections.abc import Collection
from typing import Any

from starlette.responses import JSONResponse, Response

from devstack.google_standin import ledger
from devstack.google_standin.endpoints import NO_STORE, Call
from devstack.google_standin.model import AccessToken
from devstack.google_standin.world import World


def api_error(code: int, status: str, message: str, reason: str, **more: Any) -> JSONResponse:
    """Google's error object: old-style `errors` and new-style `status` together."""
    item = {"message": message, "domain": "global", "reason": reason, **more}
    body = {"error": {"code": code, "message": message, "errors": [item], "status": status}}
    return JSONResponse(body, code, headers=NO_STORE)


def require_bearer(world: World, call: Call, any_scope: Collection[str]) -> AccessToken | Response:
    """The live token of the request, or Google's 401 or 403."""
    scheme, _, value = call.request.headers.get("authorization", "").partition(" ")
    token = ledger.live_access_token(world, value) if scheme.lower() == "bearer" else None
    if token is None:
        return _unauthenticated(missing=scheme.lower() != "bearer")
    if not set(token.scopes) & set(any_scope):
        return _insufficient_scope()
    return token


def _unauthenticated(*, missing: bool) -> Response:
    message = "Request had invalid authentication credentials. Expected OAuth 2 access token."
    reason = "required" if missing else "authError"
    location = {"location": "Authorization", "locationType": "header"}
    response = api_error(401, "UNAUTHENTICATED", message, reason, **location)
    challenge = 'Bearer realm="https://accounts.google.com/"'
    response.headers["WWW-Authenticate"] = (
        challenge if missing else f'{challenge}, error="invalid_token"'
    )
    return response


def _insufficient_scope() -> Response:
    message = "Request had insufficient authentication scopes."
    response = api_error(403, "PERMISSION_DENIED", message, "insufficientPermissions")
    response.headers["WWW-Authenticate"] = (
        'Bearer realm="https://accounts.google.com/", error="insufficient_scope"'
    )
    return response
