"""ID tokens as Google signs them, and as an attacker or a faulty Google would."""

import hashlib
from typing import Any

from devstack.google_standin import scopes as scope_names
from devstack.google_standin.context import StandinContext
from devstack.google_standin.faults import Fault
from devstack.google_standin.keys import (
    base64url,
    hs256,
    rs256,
    unpublished_key,
    unsigned,
)
from devstack.google_standin.model import AccessToken, Account, Client

_DEFECTIVE_CLAIMS: dict[str, dict[str, Any]] = {
    "nonce": {"nonce": "another-nonce"},
    "missing_nonce": {"nonce": None},
    "aud": {"aud": "someone-else.apps.googleusercontent.com", "azp": "someone-else"},
    "iss": {"iss": "https://accounts.attacker.example"},
    "missing_sub": {"sub": None},
    "empty_sub": {"sub": ""},
    "at_hash": {"at_hash": base64url(bytes(16))},
}


def mint_id_token(
    context: StandinContext,
    *,
    client: Client,
    access_token: AccessToken,
    nonce: str | None,
    fault: Fault | None = None,
) -> str:
    """Sign the ID token for an access token; `fault` may be of kind `id_token`."""
    account = context.state.accounts[access_token.sub]
    claims = _claims(context, client, account, access_token, nonce)
    defects = fault.details if fault is not None and fault.kind == "id_token" else {}
    defect = defects.get("defect")
    changes = _DEFECTIVE_CLAIMS.get(defect or "", {}) | defects.get("claims", {})
    claims = {name: value for name, value in (claims | changes).items() if value is not None}
    if defect == "expired":
        claims |= {"iat": claims["iat"] - 7200, "exp": claims["iat"] - 3600}
    if defect == "null_sub":
        claims["sub"] = None
    token = _sign(context, client, claims, defect)
    context.issued.id_tokens.append(token)
    return token


def _claims(
    context: StandinContext,
    client: Client,
    account: Account,
    access_token: AccessToken,
    nonce: str | None,
) -> dict[str, Any]:
    now = int(context.clock.epoch())
    claims: dict[str, Any] = {
        "iss": context.issuer,
        "azp": client.client_id,
        "aud": client.client_id,
        "sub": account.sub,
        "hd": account.hd,
        "at_hash": base64url(hashlib.sha256(access_token.value.encode()).digest()[:16]),
        "nonce": nonce,
        "iat": now,
        "exp": now + 3600,
    }
    if scope_names.EMAIL in access_token.scopes:
        claims |= {"email": account.email, "email_verified": account.email_verified}
    if scope_names.PROFILE in access_token.scopes:
        claims["name"] = account.name
    return claims


def _sign(
    context: StandinContext, client: Client, claims: dict[str, Any], defect: str | None
) -> str:
    key = context.state.keys.current
    if defect == "alg_none":
        return unsigned(claims)
    if defect == "hs256":
        return hs256(client.client_secret, claims, kid=key.kid)
    if defect == "unknown_kid":
        return rs256(unpublished_key(), claims)
    if defect == "bad_signature":
        return rs256(unpublished_key(), claims, kid=key.kid)
    if defect == "not_a_jwt":
        return "not.a-jwt"
    return rs256(key, claims)
