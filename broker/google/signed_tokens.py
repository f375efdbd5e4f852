"""Verifies Google's signature on a JWS: RS256, by a key that Google publishes, and nothing else.

What the claims say, and for whom, is judged by the caller.
"""

import json
from collections.abc import Awaitable, Callable, Collection
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import httpx2

from broker.clock import Clock
from broker.google.errors import GoogleUnavailable, SignedTokenRefused
from broker.google.http import fetch_json
from broker.issuers.key_cache import KeyCache, KeyCachePolicy, parse_key_set
from broker.issuers.model import JwtRefused
from broker.issuers.unverified_jwt import read_unverified_jws
from broker.outbound.cached_fetch import MAX_AGE, RETRY_STALE
from broker.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from broker.issuers.verification_keys import VerificationKey

UNKNOWN_KEY_RETRY = timedelta(seconds=10)
"""Tokens that no key fits cause at most one fetch of the keys in this time."""

_ALGORITHM: Final = "RS256"
_POLICY = KeyCachePolicy(
    max_age=MAX_AGE,
    retry_after_failure=RETRY_STALE,
    unknown_key_fetches=1,
    unknown_key_span=UNKNOWN_KEY_RETRY,
    stale_at_most=None,
)
_REASONS = {
    "too_long": "malformed",
    "algorithm": "alg",
    "critical_header": "crit",
    "type": "typ",
    "signature": "bad_signature",
}
"""Labels of metrics and audit records that differ from those of other issuers' JWTs."""


class SignedTokens:
    """The tokens that one of Google's key sets verifies."""

    def __init__(
        self,
        jwks_url: Callable[[], Awaitable[str]],
        http: httpx2.AsyncClient,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        """`jwks_url` returns the URL of the key set; it may raise `GoogleUnavailable`."""
        self._jwks_url = jwks_url
        self._http = http
        self._metrics = metrics
        self._keys = KeyCache("google", self._fetch, clock, _POLICY, unavailable=GoogleUnavailable)

    async def verify(
        self,
        unverified_token: str,
        *,
        at_most: int,
        refused: type[SignedTokenRefused],
        needs_key_id: bool = False,
        types: Collection[str] | None = None,
    ) -> dict[str, Any]:
        """Return the claims of a token of at most `at_most` characters.

        With `types`, a `typ` must be one of them. Raises `refused` with a reason that quotes
        nothing; `GoogleUnavailable` if the keys are unavailable.
        """
        try:
            payload = await self._verified_payload(
                unverified_token.encode(errors="replace"), at_most, types, needs_key_id=needs_key_id
            )
        except JwtRefused as error:
            raise refused(_REASONS.get(error.reason, error.reason)) from None
        try:
            claims = json.loads(payload)
        except (ValueError, RecursionError):
            claims = None
        if not isinstance(claims, dict):
            # Not chained: a decoding error may quote the token.
            raise refused("bad_signature") from None
        return claims

    async def _verified_payload(
        self, token: bytes, at_most: int, types: Collection[str] | None, *, needs_key_id: bool
    ) -> bytes:
        """Raises `JwtRefused` and `GoogleUnavailable`."""
        jws = read_unverified_jws(token, at_most=at_most, algorithms=(_ALGORITHM,), types=types)
        if jws.key_id is None and needs_key_id:
            raise JwtRefused("unknown_key")
        await self._keys.refresh()
        await self._keys.verify(jws)
        return jws.payload

    async def _fetch(self) -> "list[VerificationKey]":
        url = await self._jwks_url()
        document = await fetch_json(self._http, url, "jwks", self._metrics)
        keys = [key for key in await parse_key_set(document) if key.fits(_ALGORITHM)]
        if not keys:
            # Unlike another issuer's empty set, this is taken for a mistake: the old keys stay.
            raise GoogleUnavailable("bad_jwks")
        return keys
