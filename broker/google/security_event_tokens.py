"""Whether a security event token is Google's and meant for us; all of RFC 8417 but `exp`.

Google's page on Cross-Account Protection says not to check `exp`: events tell of the past. What
keeps an old token from acting again is its `jti`, and its age once that is forgotten.
"""

import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx2

from broker.clock import Clock
from broker.google.errors import GoogleUnavailable, SecurityEventRefused
from broker.google.http import fetch_json
from broker.google.remembered import Remembered
from broker.google.security_events import SecurityEventToken, read_event
from broker.google.signatures import is_plain, signed_claims
from broker.google.signing_keys import SigningKeys
from broker.settings import is_secure_url
from broker.telemetry.metrics import Metrics

LONGEST_EVENT_TOKEN = 16 * 1024
OLDEST = timedelta(days=30)
"""A token that was issued longer ago is refused."""
EARLY = timedelta(minutes=10)
"""How far Google's clock may be ahead of ours."""

_NO_MATTER_HOW_OLD = timedelta(days=3650)
"""For what an event tells of, which may have been found out late."""
_TYPES = frozenset({"jwt", "secevent+jwt"})
"""RFC 8417 §2.3 recommends the latter. What Google signs for another purpose is no event (RFC 8725
§3.11), but a token need not say what it is.
"""
_MOST_EVENTS = 16
_MOST_AUDIENCES = 100
_LONGEST_NAME = 255
_PATH = "/.well-known/risc-configuration"
_GOOGLES_NAMES = frozenset(
    {"https://accounts.google.com", "https://accounts.google.com/", "accounts.google.com"}
)


@dataclass(frozen=True, slots=True)
class RiscConfiguration:
    """Who signs events, and with which keys."""

    issuer: str
    jwks: str

    @property
    def issuers(self) -> frozenset[str]:
        """The ways in which its name is written: Google's own goes with and without a slash."""
        bare = self.issuer.removesuffix("/")
        names = {bare, bare + "/"}
        return frozenset(names | _GOOGLES_NAMES if names & _GOOGLES_NAMES else names)


def risc_configuration_url(discovery_url: str) -> str:
    """Beside the discovery document, at the same origin."""
    return urlunsplit(urlsplit(discovery_url)._replace(path=_PATH, query="", fragment=""))


def read_risc_configuration(document: dict[str, Any]) -> RiscConfiguration:
    """Raises `GoogleUnavailable("bad_discovery")` if it can't be relied on."""
    issuer, jwks = document.get("issuer"), document.get("jwks_uri")
    if not isinstance(issuer, str) or not issuer.strip("/"):
        raise GoogleUnavailable("bad_discovery")
    if not isinstance(jwks, str) or not is_secure_url(jwks):
        raise GoogleUnavailable("bad_discovery")
    return RiscConfiguration(issuer, jwks)


class SecurityEventVerifier:
    """Believes what Google signed for one of our clients, and nothing else."""

    def __init__(
        self,
        discovery_url: str,
        http: httpx2.AsyncClient,
        clock: Clock,
        metrics: Metrics,
        *,
        is_ours: Callable[[Sequence[str]], Awaitable[bool]],
    ) -> None:
        """`is_ours` tells whether one of these client ids is, or was, this broker's."""
        self._url = risc_configuration_url(discovery_url)
        self._http = http
        self._clock = clock
        self._metrics = metrics
        self._is_ours = is_ours
        self._configuration = Remembered("risc_configuration", self._fetch, clock)
        self._keys = SigningKeys(self._jwks_url, http, clock, metrics)

    async def verify(self, unverified_token: str) -> SecurityEventToken:
        """Raises `SecurityEventRefused`; `GoogleUnavailable` if the keys can't be had."""
        claims = await signed_claims(
            self._keys,
            unverified_token,
            LONGEST_EVENT_TOKEN,
            refused=SecurityEventRefused,
            needs_key_id=True,
            types=_TYPES,
        )
        issuers = (await self._configuration.get()).issuers
        issuer = claims.get("iss")
        if not isinstance(issuer, str) or issuer not in issuers:
            raise SecurityEventRefused("iss")
        audience = _audience(claims.get("aud"))
        if not audience or not await self._is_ours(audience):
            raise SecurityEventRefused("aud")
        return self._read(claims, audience, issuers)

    def _read(
        self, claims: dict[str, Any], audience: tuple[str, ...], issuers: frozenset[str]
    ) -> SecurityEventToken:
        jti, events = claims.get("jti"), claims.get("events")
        if not isinstance(jti, str) or not 1 <= len(jti) <= _LONGEST_NAME or not is_plain(jti):
            raise SecurityEventRefused("jti")
        issued_at = self._moment(claims.get("iat"))
        if issued_at is None:
            raise SecurityEventRefused("iat")
        if not isinstance(events, dict) or not 1 <= len(events) <= _MOST_EVENTS:
            raise SecurityEventRefused("events")
        if not all(isinstance(payload, dict) for payload in events.values()):
            raise SecurityEventRefused("events")
        happened_at = self._moment(claims.get("toe"), oldest=_NO_MATTER_HOW_OLD)
        is_dated = happened_at is not None and happened_at <= issued_at
        return SecurityEventToken(
            jti=jti,
            audience=audience,
            issued_at=issued_at,
            happened_at=happened_at if happened_at is not None and is_dated else issued_at,
            is_dated=is_dated,
            events=tuple(
                read_event(uri, payload, issuers=issuers, sub_id=claims.get("sub_id"))
                for uri, payload in events.items()
            ),
        )

    def _moment(self, seconds: object, *, oldest: timedelta = OLDEST) -> datetime | None:
        """A NumericDate of late; nothing for one that is too old, ahead, or no number."""
        if isinstance(seconds, bool) or not isinstance(seconds, int | float):
            return None
        now = self._clock.epoch()
        if isinstance(seconds, float) and not math.isfinite(seconds):
            return None
        if not now - oldest.total_seconds() <= seconds <= now + EARLY.total_seconds():
            return None
        return datetime.fromtimestamp(seconds, UTC)

    async def _jwks_url(self) -> str:
        return (await self._configuration.get()).jwks

    async def _fetch(self) -> RiscConfiguration:
        document = await fetch_json(self._http, self._url, "risc_configuration", self._metrics)
        return read_risc_configuration(document)


def _audience(aud: object) -> tuple[str, ...]:
    """The client ids of `aud`, which may be one or a list (RFC 7519 §4.1.3)."""
    names = aud if isinstance(aud, list) else [aud]
    return tuple(
        name
        for name in names[:_MOST_AUDIENCES]
        if isinstance(name, str) and 1 <= len(name) <= _LONGEST_NAME and is_plain(name)
    )
