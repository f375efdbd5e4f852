"""The issuers that the callers file trusts, and the only way to verify their JWTs.

Verifies that a JWT is genuine and valid now. Its audience and subject are judged by the packages
that use it.
"""

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from broker.clock import Clock
from broker.issuers.key_cache import KeyCache, KeyCachePolicy, parse_key_set
from broker.issuers.key_set_client import KeySetClient
from broker.issuers.model import Issuer, IssuerUnavailable, JwtRefused
from broker.issuers.unverified_jwt import UnverifiedJwt, check_times, unverified_issuer
from broker.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from broker.issuers.verification_keys import VerificationKey

KEY_POLL_SECONDS = 1.0
"""Interval of the check which issuers' keys are due."""
KEYS_AGE = timedelta(minutes=1)
"""Age at which keys are fetched again: a removed key is in force for at most this long."""
RETRY_AFTER_FAILURE = timedelta(seconds=10)
UNKNOWN_KEY_FETCHES, UNKNOWN_KEY_SPAN = 3, timedelta(seconds=30)
STALE_AT_MOST = timedelta(hours=24)

_LOG_INTERVAL_SECONDS = 10
_POLICY = KeyCachePolicy(
    max_age=KEYS_AGE,
    retry_after_failure=RETRY_AFTER_FAILURE,
    unknown_key_fetches=UNKNOWN_KEY_FETCHES,
    unknown_key_span=UNKNOWN_KEY_SPAN,
    stale_at_most=STALE_AT_MOST,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class VerifiedJwt:
    """Claims that the issuer has signed; valid until the expiry, while the key is in force."""

    claims: dict[str, Any]
    expires_at: float
    """Seconds since 1970."""
    key: "VerificationKey"


@dataclass(frozen=True, slots=True)
class _Trusted:
    issuer: Issuer
    keys: KeyCache


class TrustedIssuers:
    """The configured issuers and their keys."""

    def __init__(self, client: KeySetClient, clock: Clock, metrics: Metrics) -> None:
        self._client = client
        self._clock = clock
        self._up = metrics.issuer_up
        self._by_url: dict[str, _Trusted] = {}
        self._retired: list[KeyCache] = []

    def configure(self, issuers: Iterable[Issuer]) -> None:
        """Trust these issuers and no others; keeps the keys of unchanged issuers."""
        before = self._by_url
        self._by_url = {}
        for issuer in issuers:
            known = before.get(issuer.url)
            if known is not None and known.issuer == issuer:
                self._by_url[issuer.url] = before.pop(issuer.url)
            else:
                self._by_url[issuer.url] = _Trusted(issuer, self._key_cache(issuer))
        removed = [trusted.keys for trusted in before.values()]
        for keys in removed:
            keys.retire()
            if keys.was_ever_fetched:
                self._up.remove(keys.issuer)
        self._retired = [keys for keys in (*self._retired, *removed) if keys.is_fetching]

    async def verify(self, jwt: UnverifiedJwt) -> VerifiedJwt:
        """Return the JWT, if a trusted issuer signed it and it is valid now.

        Raises `JwtRefused`, or `IssuerUnavailable` if the keys are unavailable.
        """
        trusted = self._by_url.get(unverified_issuer(jwt))
        if trusted is None:
            raise JwtRefused("issuer")
        if jwt.algorithm not in trusted.issuer.algorithms:
            raise JwtRefused("algorithm")
        # The checks that cost nothing come first.
        expires_at = check_times(jwt.claims, self._clock.epoch())
        return VerifiedJwt(jwt.claims, expires_at, await trusted.keys.verify(jwt))

    def find(self, jwt: UnverifiedJwt) -> Issuer | None:
        """Return the trusted issuer that an unverified JWT names."""
        trusted = self._by_url.get(unverified_issuer(jwt))
        return trusted.issuer if trusted is not None else None

    async def refresh_keys(self) -> None:
        """Fetch the keys that are due, all issuers concurrently."""
        await asyncio.gather(*(trusted.keys.refresh() for trusted in self._by_url.values()))

    async def ping(self) -> None:
        """Raises `IssuerUnavailable` for an issuer whose keys the last fetch did not get."""
        for trusted in self._by_url.values():
            if trusted.keys.failure is not None:
                raise trusted.keys.failure.with_traceback(None)

    async def aclose(self) -> None:
        """Cancel the running fetches."""
        for keys in (*(trusted.keys for trusted in self._by_url.values()), *self._retired):
            await keys.aclose()

    def _key_cache(self, issuer: Issuer) -> KeyCache:
        async def fetch() -> "list[VerificationKey]":
            return await parse_key_set(await self._client.fetch(issuer))

        gauge = self._up
        return KeyCache(
            issuer.url,
            fetch,
            self._clock,
            _POLICY,
            unavailable=partial(IssuerUnavailable, issuer.url),
            on_availability=lambda is_available: gauge.labels(issuer=issuer.url).set(is_available),
        )


class JwtRefusalLog:
    """Counts refused JWTs and logs some. The sender gets no reason; the operator finds it here.

    Never shows a JWT nor a claim.
    """

    def __init__(self, clock: Clock, metrics: Metrics) -> None:
        self._clock = clock
        self._refused = metrics.jwts_refused
        self._logged_at: dict[tuple[str, str], float] = {}

    def record(self, use: str, refusal: JwtRefused, *, caller: str | None = None) -> None:
        """Record a JWT that was refused for this use. Logs each reason once in ten seconds."""
        self._refused.labels(use=use, reason=refusal.reason).inc()
        kind, now = (use, refusal.reason), self._clock.epoch()
        if 0 <= now - self._logged_at.get(kind, float("-inf")) < _LOG_INTERVAL_SECONDS:
            return
        self._logged_at[kind] = now
        named = {} if caller is None else {"caller": caller}
        logger.info(
            "refused a JWT",
            extra={"event": "jwt_refused", "use": use, "reason": refusal.reason, **named},
        )
