"""Who came back from Google: an ID token, believed after every check of OpenID Connect §3.1.3.7.

Nothing of a token that fails is handed on, and no reason quotes it.
"""

import base64
import hashlib
import hmac
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

import httpx2

from broker.clock import Clock
from broker.google.discovery import Discovery
from broker.google.errors import IdTokenRefused
from broker.google.signing_keys import SigningKeys
from broker.secret import Secret
from broker.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from joserfc.jwk import RSAKey
    from joserfc.jws import JWSRegistry

CLOCK_SKEW = timedelta(seconds=60)
LONGEST_ID_TOKEN = 16 * 1024

_ALGORITHM = "RS256"


@dataclass(frozen=True, slots=True)
class Identity:
    """A Google account, as Google vouches for it. Only `sub` identifies it: emails change hands."""

    sub: str
    email: str
    email_verified: bool
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
        claims = await self._signed_claims(unverified_id_token.reveal())
        endpoints = await self._discovery.endpoints()
        self._check_registered_claims(claims, endpoints.valid_issuers, client_id)
        _check_authorized_party(claims, client_id)
        _check_nonce(claims.get("nonce"), nonce)
        if access_token is not None and "at_hash" in claims:
            _check_access_token(claims["at_hash"], access_token)
        return _identity(claims)

    async def _jwks_url(self) -> str:
        return (await self._discovery.endpoints()).jwks

    async def _signed_claims(self, token: str) -> dict[str, Any]:
        """The payload, once its signature is good; still to be checked for whom it is meant."""
        kid = _key_id(token)
        key = await self._keys.find(kid)
        if key is None:
            raise IdTokenRefused("unknown_key")
        try:
            return _claims_signed_with(key, token)
        except IdTokenRefused:
            newest = await self._keys.find_newest(kid)
            if newest is None or newest is key:
                raise
        return _claims_signed_with(newest, token)

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


@cache
def _rs256() -> "JWSRegistry":
    from joserfc.jws import JWSRegistry  # noqa: PLC0415  (see `serve_until`)

    # Unknown header parameters are ignored, as RFC 7515 §4 demands; `crit` is refused below.
    return JWSRegistry(algorithms=[_ALGORITHM], strict_check_header=False)


def _claims_signed_with(key: "RSAKey", token: str) -> dict[str, Any]:
    from joserfc import jwt  # noqa: PLC0415  (see `serve_until`)
    from joserfc.errors import JoseError  # noqa: PLC0415

    try:
        return jwt.decode(token, key, registry=_rs256()).claims
    except (JoseError, ValueError, RecursionError):
        # Not chained: a decoding error may quote the token.
        raise IdTokenRefused("bad_signature") from None


def _key_id(token: str) -> str | None:
    """The `kid` of a header that promises nothing but a plain RS256 signature."""
    from joserfc import jws  # noqa: PLC0415  (see `serve_until`)
    from joserfc.errors import JoseError  # noqa: PLC0415

    if len(token) > LONGEST_ID_TOKEN or not token.isascii():
        raise IdTokenRefused("malformed")
    try:
        header: object = jws.extract_compact(token.encode(), registry=_rs256()).headers()
    except (JoseError, ValueError, TypeError, RecursionError):
        raise IdTokenRefused("malformed") from None
    if not isinstance(header, dict):
        raise IdTokenRefused("malformed")
    if header.get("alg") != _ALGORITHM:
        raise IdTokenRefused("alg")
    if "crit" in header or "b64" in header:
        raise IdTokenRefused("crit")
    kid = header.get("kid")
    if not isinstance(kid, str | None):
        raise IdTokenRefused("malformed")
    return kid


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
    if not isinstance(sub, str) or not 1 <= len(sub) <= 255 or not _is_plain(sub):
        raise IdTokenRefused("sub")
    if not isinstance(email, str) or not 3 <= len(email) <= 320 or not _is_plain(email):
        raise IdTokenRefused("email")
    return Identity(
        sub=sub,
        email=email,
        email_verified=claims.get("email_verified") in (True, "true"),
        hosted_domain=domain if isinstance(domain, str) and domain else None,
    )


def _is_plain(text: str) -> bool:
    """Printable, and without the spaces that could make two identities look like one."""
    return text.isprintable() and " " not in text
