"""The broker's Vault token: logging in by each `VAULT_AUTH`, renewing, replacing.

Files are read at each login, so that a rotated credential is used.
"""

import asyncio
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from broker.clock import Clock
from broker.issuers.model import JwtRefused
from broker.issuers.unverified_jwt import read_unverified
from broker.secret import Secret
from broker.secret_sources.source import SourceMisconfigured
from broker.secret_sources.vault_api import VaultApi, VaultRefusal, VaultToken
from broker.settings import (
    UnreadableSecretError,
    VaultAppRoleLogin,
    VaultJwtLogin,
    VaultLogin,
    VaultTokenLogin,
)

logger = logging.getLogger(__name__)

_RENEW_AFTER = 2 / 3
"""The part of its lifetime after which a token is renewed."""
_WORTHWHILE_RENEWAL = 1 / 10
"""A renewal that adds less than this part of the lifetime has met the token's maximum life."""
_ROUNDING = timedelta(seconds=1)
"""Vault reports lifetimes in whole seconds, so that less than this may be nothing at all."""

_METHOD_NEEDS = {
    "kubernetes": "that it can ask that cluster for a TokenReview",
    "jwt": "that it has the issuer's keys",
}
"""The needs of an auth method besides its roles."""


@dataclass(frozen=True, slots=True)
class _IssuedToken:
    """A token, and when it was issued or renewed."""

    issued: VaultToken
    since: datetime

    @property
    def token(self) -> Secret:
        return self.issued.token

    @property
    def expires_at(self) -> datetime | None:
        return None if self.issued.lifetime is None else self.since + self.issued.lifetime

    def is_due(self, now: datetime) -> bool:
        """True if it is time to renew."""
        if self.issued.lifetime is None:
            return False
        return now >= self.since + self.issued.lifetime * _RENEW_AFTER

    def has_expired(self, now: datetime) -> bool:
        return self.expires_at is not None and now >= self.expires_at


class TokenKeeper:
    """Logs in at the first use, renews after 2/3 of the lifetime, and logs in again when renewing
    adds nothing.

    Its methods raise `SourceUnavailable` and `SourceMisconfigured`. One login or renewal runs at a
    time; concurrent callers use its result.
    """

    def __init__(self, api: VaultApi, login: VaultLogin, clock: Clock) -> None:
        self._api = api
        self._login = login
        self._clock = clock
        self._current: _IssuedToken | None = None
        self._changing = asyncio.Lock()
        self._warned_of: Secret | None = None

    async def token(self) -> Secret:
        """Return the token to use now."""
        async with self._changing:
            if self._current is None or self._current.has_expired(self._clock.now()):
                self._current = await self._log_in()
            return self._current.token

    async def maintain(self) -> None:
        """Renew or replace the token if it is due; no I/O if it is not."""
        async with self._changing:
            current, now = self._current, self._clock.now()
            if current is None or not current.is_due(now):
                return
            if current.has_expired(now):
                # The address was unavailable for so long, or is no longer used.
                self._current = None
                return
            self._current = await self._renew(current) or await self._succeed(current)

    async def replace(self, refused: Secret) -> Secret | None:
        """Return another token than the one that Vault has refused; None if there is no other."""
        async with self._changing:
            if self._current is None or self._current.token == refused:
                self._current = await self._log_in()
            token = self._current.token
            return None if token == refused else token

    async def _renew(self, current: _IssuedToken) -> _IssuedToken | None:
        """Return the token with a longer life; None if it cannot be renewed further."""
        if not current.issued.renewable:
            return None
        sent_at = self._clock.now()
        answer = await self._api.renew(current.token)
        if isinstance(answer, VaultRefusal):
            return None
        renewed = _IssuedToken(answer, sent_at)
        lifetime, expires_at = current.issued.lifetime, current.expires_at
        if lifetime is None or expires_at is None or renewed.expires_at is None:
            return renewed
        worthwhile = max(lifetime * _WORTHWHILE_RENEWAL, _ROUNDING)
        return renewed if renewed.expires_at - expires_at >= worthwhile else None

    async def _succeed(self, current: _IssuedToken) -> _IssuedToken:
        """Return a token's successor, or the same token if the operator has provided no other."""
        if not isinstance(self._login, VaultTokenLogin):
            return await self._log_in()
        token = await _provided_token(self._login)
        if token != current.token:
            return await self._log_in()
        if self._warned_of != token:
            self._warned_of = token
            logger.warning(
                "the Vault token cannot be renewed: replace VAULT_TOKEN before it expires, or use "
                "another VAULT_AUTH",
                extra={
                    "event": "vault_token_not_renewable",
                    "expires_at": str(current.expires_at),
                },
            )
        # From now on only the file is read, until it has another token.
        return replace(current, issued=replace(current.issued, renewable=False))

    async def _log_in(self) -> _IssuedToken:
        sent_at = self._clock.now()
        return _IssuedToken(await _log_in(self._api, self._login, self._clock), sent_at)


async def _log_in(api: VaultApi, login: VaultLogin, clock: Clock) -> VaultToken:
    match login:
        case VaultTokenLogin():
            return await _log_in_with_token(api, login)
        case VaultAppRoleLogin():
            return await _log_in_with_approle(api, login)
        case VaultJwtLogin():
            return await _log_in_with_jwt(api, login, clock)


async def _provided_token(login: VaultTokenLogin) -> Secret:
    token = await _read(login.token.read)
    if not re.fullmatch(r"[\x21-\x7e]+", token.reveal()):
        raise SourceMisconfigured("VAULT_TOKEN holds a character that no token has")
    return token


async def _log_in_with_token(api: VaultApi, login: VaultTokenLogin) -> VaultToken:
    token = await _provided_token(login)
    answer = await api.look_up(token)
    if isinstance(answer, VaultRefusal):
        # The token is invalid, or its policies do not allow the lookup: its first use will show.
        return VaultToken(token, lifetime=None, renewable=False)
    return answer


async def _log_in_with_approle(api: VaultApi, login: VaultAppRoleLogin) -> VaultToken:
    role_id, secret_id = await _read(login.role_id.read), await _read(login.secret_id.read)
    answer = await api.log_in_with_approle(role_id, secret_id)
    if isinstance(answer, VaultToken):
        return answer
    if answer is VaultRefusal.BAD_REQUEST:
        raise SourceMisconfigured(
            f"Vault at {api.name} refuses VAULT_ROLE_ID or VAULT_SECRET_ID (wrong, expired or used "
            "up): `vault write -f auth/approle/role/<role>/secret-id` makes a new secret id"
        )
    raise SourceMisconfigured(
        f"Vault at {api.name} has no AppRole login at auth/approle: `vault auth enable approle`, "
        "or correct VAULT_NAMESPACE"
    )


async def _log_in_with_jwt(api: VaultApi, login: VaultJwtLogin, clock: Clock) -> VaultToken:
    jwt = await _read(login.read_token)
    answer = await api.log_in_with_jwt(login.method, login.role, jwt)
    if isinstance(answer, VaultToken):
        return answer
    raise SourceMisconfigured(f"Vault at {api.name} {_jwt_remedy(answer, login, jwt, clock)}")


def _jwt_remedy(refusal: VaultRefusal, login: VaultJwtLogin, jwt: Secret, clock: Clock) -> str:
    """Return the end of a sentence about the refusal, with what to do.

    Of the token only the claims that a role binds are shown: Vault gives the same answer whichever
    of them is wrong.
    """
    role, mount = repr(login.role), f"auth/{login.method}"
    if refusal is VaultRefusal.NO_SUCH_NAMESPACE:
        return "doesn't know the namespace: correct VAULT_NAMESPACE"
    if refusal is VaultRefusal.NO_SUCH_ROLE:
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
        f"{_METHOD_NEEDS[login.method]}"
    )


async def _read(read: Callable[[], Secret]) -> Secret:
    try:
        return await asyncio.to_thread(read)
    except UnreadableSecretError as error:
        problem = str(error)
    # Outside of `except`: a UnicodeDecodeError would be chained, and it holds the file's bytes.
    raise SourceMisconfigured(problem)
