"""Logging in to Vault, in each way that `VAULT_AUTH` names; and what each refusal means.

Files are read at each login, so that what is replaced in them is used.
"""

import asyncio
import re
from collections.abc import Callable

from broker.clock import Clock
from broker.issuers.model import JwtRefused
from broker.issuers.unverified import read_unverified
from broker.secret import Secret
from broker.secret_sources.source import SourceMisconfigured
from broker.secret_sources.vault_answers import Refusal, VaultToken
from broker.secret_sources.vault_api import VaultApi, VaultRefused
from broker.settings import (
    UnreadableSecretError,
    VaultAppRoleLogin,
    VaultJwtLogin,
    VaultLogin,
    VaultTokenLogin,
)

_NEEDS = {
    "kubernetes": "that it can ask that cluster for a TokenReview",
    "jwt": "that it has the issuer's keys",
}
"""What the method needs besides its roles."""


async def log_in(api: VaultApi, login: VaultLogin, clock: Clock) -> VaultToken:
    """A token of the broker's own. Raises `SourceUnavailable` and `SourceMisconfigured`."""
    match login:
        case VaultTokenLogin():
            return await _with_token(api, login)
        case VaultAppRoleLogin():
            return await _with_approle(api, login)
        case VaultJwtLogin():
            return await _with_jwt(api, login, clock)


async def provided_token(login: VaultTokenLogin) -> Secret:
    """The token that an operator gave. Raises `SourceMisconfigured`."""
    token = await _read(login.token.read)
    if not re.fullmatch(r"[\x21-\x7e]+", token.reveal()):
        raise SourceMisconfigured("VAULT_TOKEN holds a character that no token has")
    return token


async def _with_token(api: VaultApi, login: VaultTokenLogin) -> VaultToken:
    token = await provided_token(login)
    try:
        return await api.look_up(token)
    except VaultRefused:
        # The token is bad, or its policies don't let it look at itself: using it will tell.
        return VaultToken(token, lasts=None, renewable=False)


async def _with_approle(api: VaultApi, login: VaultAppRoleLogin) -> VaultToken:
    role_id, secret_id = await _read(login.role_id.read), await _read(login.secret_id.read)
    try:
        return await api.log_in_with_approle(role_id, secret_id)
    except VaultRefused as error:
        refusal = error.refusal
    if refusal is Refusal.BAD_REQUEST:
        raise SourceMisconfigured(
            f"Vault at {api.name} refuses VAULT_ROLE_ID or VAULT_SECRET_ID (wrong, expired or used "
            "up): `vault write -f auth/approle/role/<role>/secret-id` makes a new secret id"
        )
    raise SourceMisconfigured(
        f"Vault at {api.name} has no AppRole login at auth/approle: `vault auth enable approle`, "
        "or correct VAULT_NAMESPACE"
    )


async def _with_jwt(api: VaultApi, login: VaultJwtLogin, clock: Clock) -> VaultToken:
    jwt = await _read(login.read_token)
    try:
        return await api.log_in_with_jwt(login.method, login.role, jwt)
    except VaultRefused as error:
        refusal = error.refusal
    raise SourceMisconfigured(f"Vault at {api.name} {_jwt_remedy(refusal, login, jwt, clock)}")


def _jwt_remedy(refusal: Refusal, login: VaultJwtLogin, jwt: Secret, clock: Clock) -> str:
    """What it does, and what to do about it. Of the token only the claims are shown that a role
    binds: Vault's answer may be the same whichever of them is wrong.
    """
    role, mount = repr(login.role), f"auth/{login.method}"
    if refusal is Refusal.NO_SUCH_NAMESPACE:
        return "doesn't know the namespace: correct VAULT_NAMESPACE"
    if refusal is Refusal.NO_SUCH_ROLE:
        return f"has no role {role} at {mount}: make it, or correct VAULT_ROLE or VAULT_NAMESPACE"
    text = jwt.reveal().encode()
    try:
        claims = read_unverified(text, at_most=len(text)).claims
    except JwtRefused:
        return f"refuses what is in {login.token_file}: it is not a JWT"
    expiry = claims.get("exp")
    if isinstance(expiry, int | float) and expiry <= clock.epoch():
        return (
            f"refuses the token in {login.token_file}: it has expired, and the kubelet should "
            "have replaced it"
        )
    shown = ", ".join(f"{name} {claims.get(name)!r}" for name in ("sub", "aud", "iss"))
    return (
        f"refuses the role {role} at {mount} to a token with {shown}: check that the role allows "
        "them, that the method is enabled there (or correct VAULT_NAMESPACE), and "
        f"{_NEEDS[login.method]}"
    )


async def _read(read: Callable[[], Secret]) -> Secret:
    try:
        return await asyncio.to_thread(read)
    except UnreadableSecretError as error:
        problem = str(error)
    # Outside of `except`: a file that is not text would be chained along, bytes and all.
    raise SourceMisconfigured(problem)
