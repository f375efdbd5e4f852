"""Who came back from Google: an ID token, believed after every check of OpenID Connect §3.1.3.7.

Nothing of a token that fails is handed on, and no reason quotes it.
"""

import base64
import hashlib
import hmac
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx2

from broker.clock import Clock
from broker.google.discovery import Discovery
from broker.google.errors import IdTokenRefused
from broker.google.signatures import is_plain, signed_claims
from broker.google.signing_keys import SigningKeys
from broker.secret import Secret
from broker.telemetry.metrics import Metrics

CLOCK_SKEW = timedelta(seconds=60)
"""For `nbf` and `iat`; `exp` needs none, an hour after them."""
LONGEST_ID_TOKEN = 16 * 1024


@dataclass(frozen=True, slots=True)
class Identity:
    """A Google account, as Google vouches for it. Only `sub` identifies it: emails change hands."""

    sub: str
    email: str
    email_verified: bool | None
    """Whether the address is known to be the account's; None if Google does not say."""
    hosted_domain: str | None
    """The Workspace domain (`hd`); None for a private account."""


class IdTokenVerifier:
    """Verifies ID tokens against the keys that discovery names."""

    def __init__(
        self, discovery: Discovery, http: httpx2.AsyncClient, clock: Clock, metrics: Metrics
    ) -> None:
        self._discovery = discovery
        self._clock = clock
        self._keys = SigningKeys(self._jwks_url, http, clock, metrics)

    async def verify(
        self,
        unverified_id_token: Secret,
        *,
        client_id: str,
        nonce: str,
        access_token: Secret | None = None,
    ) -> Identity:
        """The identity that a token proves to this client, for the login that sent this nonce.

        With `access_token`, the one that came along, an `at_hash` claim must match it. Raises
        `IdTokenRefused`; `GoogleUnavailable` if the keys can't be had.
        """
        claims = await signed_claims(
            self._keys, unverified_id_token.reveal(), LONGEST_ID_TOKEN, refused=IdTokenRefused
        )
        endpoints = await self._discovery.endpoints()
        self._check_registered_claims(claims, endpoints.valid_issuers, client_id)
        self._check_expiry(claims)
        _check_authorized_party(claims, client_id)
        _check_nonce(claims.get("nonce"), nonce)
        if access_token is not None and "at_hash" in claims:
            _check_access_token(claims["at_hash"], access_token)
        return _identity(claims)

    async def _jwks_url(self) -> str:
        return (await self._discovery.endpoints()).jwks

    def _check_registered_claims(
        self, claims: dict[str, Any], issuers: frozenset[str], client_id: str
    ) -> None:
        from joserfc.errors import ClaimError  # noqa: PLC0415  (see `serve_until`)
        from joserfc.jwt import JWTClaimsRegistry  # noqa: PLC0415

        registry = JWTClaimsRegistry(
            now=int(self._clock.epoch()),
            leeway=int(CLOCK_SKEW.total_seconds()),
            iss={"essential": True, "values": sorted(issuers)},
            aud={"essential": True, "value": client_id},
            exp={"essential": True},
            iat={"essential": True},
            sub={"essential": True},
        )
        try:
            registry.validate(claims)
        except ClaimError as error:
            # Several claims may be missing at once; the first names the refusal well enough.
            raise IdTokenRefused(error.claim.partition(",")[0]) from None

    def _check_expiry(self, claims: dict[str, Any]) -> None:
        """RFC 7519 §4.1.4: not on or after that moment, whatever skew others are given."""
        if self._clock.epoch() >= claims["exp"]:
            raise IdTokenRefused("exp")


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
    if not isinstance(sub, str) or not 1 <= len(sub) <= 255 or not is_plain(sub):
        raise IdTokenRefused("sub")
    if not isinstance(email, str) or not 3 <= len(email) <= 320 or not is_plain(email):
        raise IdTokenRefused("email")
    return Identity(
        sub=sub,
        email=email,
        email_verified=_verified(claims.get("email_verified")),
        hosted_domain=domain if isinstance(domain, str) and domain else None,
    )
