"""The token endpoint: exchanges codes and refresh tokens, and refuses in Google's words."""

import base64
import hashlib
import hmac
from typing import Any

from starlette.responses import JSONResponse, Response

from devstack.google_standin import scopes as scope_names
from devstack.google_standin import tokens
from devstack.google_standin.context import StandinContext
from devstack.google_standin.endpoints import NO_STORE, Call, oauth_error
from devstack.google_standin.id_tokens import mint_id_token
from devstack.google_standin.model import Client, Code, RefreshToken

EXPIRED_OR_REVOKED = "Token has been expired or revoked."


class TokenEndpoint:
    """Serves `POST /token`."""

    def __init__(self, context: StandinContext) -> None:
        self._context = context

    def __call__(self, call: Call) -> Response:
        client = authenticate(self._context, call)
        if isinstance(client, Response):
            return client
        grant_type = call.parameters.get("grant_type", "")
        if grant_type == "authorization_code":
            return self._exchange(call, client)
        if grant_type == "refresh_token":
            return self._refresh(call, client)
        if not grant_type:
            return oauth_error("invalid_request", 400, "Missing required parameter: grant_type")
        return oauth_error("unsupported_grant_type", 400, f"Invalid grant_type: {grant_type}")

    def _exchange(self, call: Call, client: Client) -> Response:
        value = call.parameters.get("code")
        if not value:
            return oauth_error("invalid_request", 400, "Missing required parameter: code")
        code = self._context.state.codes.get(value)
        if code is None:
            return oauth_error("invalid_grant", 400, "Malformed auth code.")
        refusal = self._refusal_of_code(call, client, code)
        if refusal is not None:
            return refusal
        code.used = True
        refresh_token = tokens.refresh_token_for(self._context, client, code)
        return self._answer(
            call,
            client,
            sub=code.sub,
            scopes=code.scopes,
            nonce=code.nonce,
            offline=code.offline,
            new_refresh_token=refresh_token,
        )

    def _refusal_of_code(self, call: Call, client: Client, code: Code) -> Response | None:
        if code.used or code.expires_at <= self._context.clock.epoch():
            return oauth_error("invalid_grant", 400, "Bad Request")
        if code.client_id != client.client_id:
            return oauth_error("unauthorized_client", 401, "Unauthorized")
        if call.parameters.get("redirect_uri") != code.redirect_uri:
            return oauth_error("redirect_uri_mismatch", 400, "Bad Request")
        if code.code_challenge is None:
            return None
        verifier = call.parameters.get("code_verifier")
        if not verifier:
            return oauth_error("invalid_grant", 400, "Missing code verifier.")
        if not _verifier_fits(verifier, code):
            return oauth_error("invalid_grant", 400, "Invalid code verifier.")
        return None

    def _refresh(self, call: Call, client: Client) -> Response:
        value = call.parameters.get("refresh_token")
        if not value:
            return oauth_error("invalid_request", 400, "Missing required parameter: refresh_token")
        token = self._context.state.refresh_tokens.get(value)
        if token is None:
            return oauth_error("invalid_grant", 400, EXPIRED_OR_REVOKED)
        if token.client_id != client.client_id:
            return oauth_error("unauthorized_client", 401, "Unauthorized")
        asked = scope_names.as_google_names(call.parameters.get("scope", "").split())
        if not set(asked) <= set(token.scopes):
            return oauth_error("invalid_scope", 400, "Some requested scopes were not granted.")
        return self._answer(
            call,
            client,
            sub=token.sub,
            scopes=asked if asked and self._context.behaviour.narrows else token.scopes,
            nonce=None,
            offline=True,
            new_refresh_token=self._rotated(call, client, token),
        )

    def _rotated(self, call: Call, client: Client, token: RefreshToken) -> RefreshToken | None:
        """Issue a new refresh token, which Google does only if a fault is planned."""
        if call.fault is None or call.fault.kind != "rotate":
            return None
        if call.fault.details["retire_old"]:
            del self._context.state.refresh_tokens[token.value]
        return tokens.issue_refresh_token(
            self._context, client=client, sub=token.sub, scopes=token.scopes
        )

    def _answer(
        self,
        call: Call,
        client: Client,
        *,
        sub: str,
        scopes: list[str],
        nonce: str | None,
        offline: bool,
        new_refresh_token: RefreshToken | None,
    ) -> Response:
        access_token = tokens.issue_access_token(
            self._context, client=client, sub=sub, scopes=scopes, offline=offline
        )
        body: dict[str, Any] = {
            "access_token": access_token.value,
            "expires_in": self._context.behaviour.token_lifetime,
            "scope": " ".join(scopes),
            "token_type": "Bearer",
        }
        if new_refresh_token is not None:
            body["refresh_token"] = new_refresh_token.value
        if "openid" in scopes:
            body["id_token"] = mint_id_token(
                self._context,
                client=client,
                access_token=access_token,
                nonce=nonce,
                fault=call.fault,
            )
        return JSONResponse(body, headers=NO_STORE)


def authenticate(context: StandinContext, call: Call) -> Client | Response:
    """Return the client of the request's credentials, or Google's refusal."""
    if not call.client_id:
        return oauth_error("invalid_request", 400, "Could not determine client ID from request.")
    client = context.state.clients.get(call.client_id)
    if client is None:
        return oauth_error("invalid_client", 401, "The OAuth client was not found.")
    if client.deleted:
        return oauth_error("deleted_client", 401, "The OAuth client was deleted.")
    if not call.client_secret:
        return oauth_error("invalid_request", 400, "client_secret is missing.")
    if not hmac.compare_digest(client.client_secret.encode(), call.client_secret.encode()):
        return oauth_error("invalid_client", 401, "The provided client secret is invalid.")
    return client


def _verifier_fits(verifier: str, code: Code) -> bool:
    """RFC 7636 §4.6."""
    if code.code_challenge_method == "plain":
        return verifier == code.code_challenge
    digest = hashlib.sha256(verifier.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == code.code_challenge
