"""Discovery, keys, revocation, userinfo and tokeninfo: the endpoints that only read or revoke."""

from typing import Any

from starlette.responses import JSONResponse, Response

from devstack.google_standin import ledger
from devstack.google_standin import scopes as scope_names
from devstack.google_standin.bearer import require_bearer
from devstack.google_standin.endpoints import NO_STORE, Call, oauth_error
from devstack.google_standin.world import World

PUBLIC = {"Cache-Control": "public, max-age=3600"}


class AccountEndpoints:
    """Handlers that share the world."""

    def __init__(self, world: World) -> None:
        self._world = world

    def discovery(self, call: Call) -> Response:
        """OpenID Connect Discovery §3, with what Google's own document says."""
        base = self._world.base_url
        document: dict[str, Any] = {
            "issuer": self._world.issuer,
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
        if self._world.manners.send_iss:
            document["authorization_response_iss_parameter_supported"] = True
        return JSONResponse(document, headers=PUBLIC)

    def jwks(self, call: Call) -> Response:
        return JSONResponse(self._world.state.keys.jwks(), headers=PUBLIC)

    def revoke(self, call: Call) -> Response:
        """RFC 7009, but 400 `invalid_token` for a token that is already dead, as Google does."""
        token = call.parameters.get("token")
        if not token:
            return oauth_error("invalid_request", 400, "Missing required parameter: token")
        if not ledger.revoke_token(self._world, token):
            return oauth_error("invalid_token", 400, "Token expired or revoked")
        return JSONResponse({}, headers=NO_STORE)

    def userinfo(self, call: Call) -> Response:
        """OpenID Connect Core §5.3."""
        token = require_bearer(self._world, call, {"openid", scope_names.EMAIL})
        if isinstance(token, Response):
            return token
        account = self._world.state.accounts[token.sub]
        claims: dict[str, Any] = {"sub": account.sub}
        if scope_names.EMAIL in token.scopes:
            claims |= {"email": account.email, "email_verified": account.email_verified}
        if scope_names.PROFILE in token.scopes:
            claims["name"] = account.name
        if account.hd:
            claims["hd"] = account.hd
        return JSONResponse(claims, headers=NO_STORE)

    def tokeninfo(self, call: Call) -> Response:
        """What Google says of an access token in a parameter."""
        token = ledger.live_access_token(self._world, call.parameters.get("access_token", ""))
        if token is None:
            return oauth_error("invalid_token", 400, "Invalid Value")
        account = self._world.state.accounts[token.sub]
        facts: dict[str, Any] = {
            "azp": token.client_id,
            "aud": token.client_id,
            "sub": token.sub,
            "scope": " ".join(token.scopes),
            "exp": str(int(token.expires_at)),
            "expires_in": str(int(token.expires_at - self._world.clock.epoch())),
            "access_type": "offline" if token.offline else "online",
        }
        if scope_names.EMAIL in token.scopes:
            facts |= {"email": account.email, "email_verified": str(account.email_verified).lower()}
        return JSONResponse(facts, headers=NO_STORE)
