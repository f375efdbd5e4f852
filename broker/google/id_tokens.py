"""Verifies ID tokens by every check of OpenID Connect §3.1.3.7.

Nothing of a token that fails is returned, and no reason quotes it.
"""

import base64
import hashlib
import hmac
from dataclasses import dataclass
from typing import Any

import httpx2

from broker.clock import Clock
from broker.google.discovery import Discovery
from broker.google.errors import IdTokenRefused
from broker.google.signed_tokens import SignedTokens
from broker.issuers.model import JwtRefused
from broker.issuers.unverified_jwt import check_times, has_audience, is_unambiguous
from broker.secret import Secret
from broker.telemetry.metrics import Metrics

LONGEST_ID_TOKEN = 16 * 1024


@dataclass(frozen=True, slots=True)
class Identity:
    """A Google account, as Google attests it. Only `sub` identifies it: emails change hands."""

    sub: str
    email: str
    email_verified: bool | None
    """True if the address is known to be the account's; None if Google does not say."""
    hosted_domain: str | None
    """The Workspace domain (`hd`); None for a private account."""


class IdTokenVerifier:
    """Verifies ID tokens with the keys that discovery names."""

    def __init__(
        self, discovery: Discovery, http: httpx2.AsyncClient, clock: Clock, metrics: Metrics
    ) -> None:
        self._discovery = discovery
        self._clock = clock
        self._tokens = SignedTokens(self._jwks_url, http, clock, metrics)

    async def verify(
        self,
        unverified_id_token: Secret,
        *,
        client_id: str,
        nonce: str,
        access_token: Secret | None = None,
    ) -> Identity:
        """Return the identity that a token proves to this client, for the login with this nonce.

        An `at_hash` claim must match `access_token`, the one that came with it. Raises
        `IdTokenRefused`; `GoogleUnavailable` if the keys are unavailable.
        """
        claims = await self._tokens.verify(
            unverified_id_token.reveal(), at_most=LONGEST_ID_TOKEN, refused=IdTokenRefused
        )
        endpoints = await self._discovery.endpoints()
        issuer = claims.get("iss")
        if not isinstance(issuer, str) or issuer not in endpoints.valid_issuers:
            raise IdTokenRefused("iss")
        if not has_audience(claims, client_id):
            raise IdTokenRefused("aud")
        self._check_times(claims)
        _check_authorized_party(claims, client_id)
        _check_nonce(claims.get("nonce"), nonce)
        if access_token is not None and "at_hash" in claims:
            _check_access_token(claims["at_hash"], access_token)
        return _identity(claims)

    async def _jwks_url(self) -> str:
        return (await self._discovery.endpoints()).jwks

    def _check_times(self, claims: dict[str, Any]) -> None:
        if "iat" not in claims:
            raise IdTokenRefused("iat")
        try:
            check_times(claims, self._clock.epoch())
        except JwtRefused as error:
            raise IdTokenRefused(error.claim or error.reason) from None


def _verified(claim: object) -> bool | None:
    return None if claim is None else claim in (True, "true")


def _check_authorized_party(claims: dict[str, Any], client_id: str) -> None:
    audience = claims["aud"]
    if "azp" in claims:
        if claims["azp"] != client_id:
            raise IdTokenRefused("azp")
    elif isinstance(audience, list) and len(audience) > 1:
        raise IdTokenRefused("azp")


def _check_nonce(unverified: object, sent: str) -> None:
    if not _is_same(unverified, sent):
        raise IdTokenRefused("nonce")


def _check_access_token(unverified: object, access_token: Secret) -> None:
    """OpenID Connect §3.1.3.8: the left half of the hash that the signature uses."""
    digest = hashlib.sha256(access_token.reveal().encode()).digest()
    if not _is_same(unverified, base64.urlsafe_b64encode(digest[:16]).rstrip(b"=").decode()):
        raise IdTokenRefused("at_hash")


def _is_same(unverified: object, expected: str) -> bool:
    return isinstance(unverified, str) and hmac.compare_digest(
        unverified.encode(errors="replace"), expected.encode()
    )


def _identity(claims: dict[str, Any]) -> Identity:
    sub, email, domain = claims.get("sub"), claims.get("email"), claims.get("hd")
    if not isinstance(sub, str) or not 1 <= len(sub) <= 255 or not is_unambiguous(sub):
        raise IdTokenRefused("sub")
    if not isinstance(email, str) or not 3 <= len(email) <= 320 or not is_unambiguous(email):
        raise IdTokenRefused("email")
    return Identity(
        sub=sub,
        email=email,
        email_verified=_verified(claims.get("email_verified")),
        hosted_domain=domain if isinstance(domain, str) and domain else None,
    )
