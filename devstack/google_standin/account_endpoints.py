"""Discovery, keys, revocation, userinfo and tokeninfo; and Bearer tokens at Google's APIs."""

from collections.abc import Collection
from typing import Any

from starlette.responses import JSONResponse, Response

from devstack.google_standin import scopes as scope_names
from devstack.google_standin import tokens
from devstack.google_standin.context import StandinContext
from devstack.google_standin.endpoints import NO_STORE, Call, oauth_error
from devstack.google_standin.model import AccessToken

PUBLIC = {"Cache-Control": "public, max-age=3600"}


def api_error(code: int, status: str, message: str, reason: str, **more: Any) -> JSONResponse:
    """Return Google's error object, with old-style `errors` and new-style `status`."""
    item = {"message": message, "domain": "global", "reason": reason, **more}
    body = {"error": {"code": code, "message": message, "errors": [item], "status": status}}
    return JSONResponse(body, code, headers=NO_STORE)


def require_bearer(
    context: StandinContext, call: Call, any_scope: Collection[str]
) -> AccessToken | Response:
    """Return the live token of the request, or Google's 401 or 403."""
    scheme, _, value = call.request.headers.get("authorization", "").partition(" ")
    token = tokens.live_access_token(context, value) if scheme.lower() == "bearer" else None
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


class AccountEndpoints:
    """The handlers."""

    def __init__(self, context: StandinContext) -> None:
        self._context = context

    def discovery(self, call: Call) -> Response:
        """OpenID Connect Discovery §3, with the members of Google's own document."""
        base = self._context.base_url
        document: dict[str, Any] = {
            "issuer": self._context.issuer,
            "authorization_endpoint": f"{base}/o/oauth2/v2/auth",
            "token_endpoint": f"{base}/token",
            "userinfo_endpoint": f"{base}/v1/userinfo",
            "revocation_endpoint": f"{base}/revoke",
            "jwks_uri": f"{base}/oauth2/v3/certs",
            "response_types_supported": ["code"],
            "response_modes_supported": ["query"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "scopes_supported": ["openid", "email", "profile"],
            "token_endpoint_auth_methods_supported": ["client_secret_post", "client_secret_basic"],
            "claims_supported": ["aud", "email", "email_verified", "exp", "iat", "iss", "sub"],
            "code_challenge_methods_supported": ["plain", "S256"],
            "grant_types_supported": ["authorization_code", "refresh_token"],
        }
        if self._context.behaviour.send_iss:
            document["authorization_response_iss_parameter_supported"] = True
        return JSONResponse(document, headers=PUBLIC)

    def jwks(self, call: Call) -> Response:
        return JSONResponse(self._context.state.keys.jwks(), headers=PUBLIC)

    def revoke(self, call: Call) -> Response:
        """RFC 7009, but 400 `invalid_token` for a token that is already dead, as Google does."""
        token = call.parameters.get("token")
        if not token:
            return oauth_error("invalid_request", 400, "Missing required parameter: token")
        if not tokens.revoke_token(self._context, token):
            return oauth_error("invalid_token", 400, "Token expired or revoked")
        return JSONResponse({}, headers=NO_STORE)

    def userinfo(self, call: Call) -> Response:
        """OpenID Connect Core §5.3."""
        token = require_bearer(self._context, call, {"openid", scope_names.EMAIL})
        if isinstance(token, Response):
            return token
        account = self._context.state.accounts[token.sub]
        claims: dict[str, Any] = {"sub": account.sub}
        if scope_names.EMAIL in token.scopes:
            claims |= {"email": account.email, "email_verified": account.email_verified}
        if scope_names.PROFILE in token.scopes:
            claims["name"] = account.name
        if account.hd:
            claims["hd"] = account.hd
        return JSONResponse(claims, headers=NO_STORE)

    def tokeninfo(self, call: Call) -> Response:
        """Describe an access token given as a parameter."""
        token = tokens.live_access_token(self._context, call.parameters.get("access_token", ""))
        if token is None:
            return oauth_error("invalid_token", 400, "Invalid Value")
        account = self._context.state.accounts[token.sub]
        facts: dict[str, Any] = {
            "azp": token.client_id,
            "aud": token.client_id,
            "sub": token.sub,
            "scope": " ".join(token.scopes),
            "exp": str(int(token.expires_at)),
            "expires_in": str(int(token.expires_at - self._context.clock.epoch())),
            "access_type": "offline" if token.offline else "online",
        }
        if scope_names.EMAIL in token.scopes:
            facts |= {"email": account.email, "email_verified": str(account.email_verified).lower()}
        return JSONResponse(facts, headers=NO_STORE)
