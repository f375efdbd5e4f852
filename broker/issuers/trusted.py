"""The issuers that the callers file trusts, and the one way in which a JWT of theirs is believed.

Checks what makes a JWT genuine and of now. For whom it is meant and whom it names, the rooms decide
that ask.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from broker.clock import Clock
from broker.issuers.documents import IssuerDocuments
from broker.issuers.issuer_keys import IssuerKeys
from broker.issuers.model import Issuer, IssuerUnavailable, JwtRefused
from broker.issuers.unverified import UnverifiedJwt
from broker.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from broker.issuers.key_set import VerificationKey

CLOCK_SKEW = timedelta(seconds=60)
"""How far ahead an issuer's clock may be when it says `iat` or `nbf`. For `exp` there is none: a
JWT of a minute and more is never hurt by a clock that is a little off."""
LOOK_SECONDS = 1.0
"""How often it is looked which issuers' keys are due."""


@dataclass(frozen=True, slots=True)
class VerifiedJwt:
    """Claims that the issuer has signed, and what keeps them true."""

    claims: dict[str, Any]
    good_until: float
    """Seconds since 1970."""
    key: "VerificationKey"


class TrustedIssuers:
    """Follows the callers file; holds each issuer's keys."""

    def __init__(self, documents: IssuerDocuments, clock: Clock, metrics: Metrics) -> None:
        self._documents = documents
        self._clock = clock
        self._metrics = metrics
        self._by_url: dict[str, IssuerKeys] = {}
        self._retired: list[IssuerKeys] = []

    def follow(self, issuers: Iterable[Issuer]) -> None:
        """Trust these from now on, and no others; the keys of those that stay are kept."""
        before = self._by_url
        self._by_url = {}
        for issuer in issuers:
            known = before.get(issuer.url)
            if known is not None and known.issuer == issuer:
                self._by_url[issuer.url] = before.pop(issuer.url)
            else:
                self._by_url[issuer.url] = IssuerKeys(
                    issuer, self._documents, self._clock, self._metrics
                )
        for keys in before.values():
            keys.retire()
        self._retired = [keys for keys in (*self._retired, *before.values()) if keys.is_looking]

    async def verify(self, jwt: UnverifiedJwt) -> VerifiedJwt:
        """The JWT, if the issuer that it names is trusted, signed it, and it is in time.

        Raises `JwtRefused`; `IssuerUnavailable` if the keys can't be had.
        """
        keys = self._by_url.get(issuer_of(jwt))
        if keys is None:
            raise JwtRefused("issuer")
        if jwt.algorithm not in keys.issuer.algorithms:
            raise JwtRefused("algorithm")
        # What costs nothing comes first.
        good_until = _in_time(jwt.claims, self._clock.epoch())
        key = await keys.find(jwt)
        if key is None:
            raise JwtRefused("unknown_key")
        if not key.verify(jwt):
            key = await keys.find_newer(jwt, key)
            if key is None or not key.verify(jwt):
                raise JwtRefused("signature")
        return VerifiedJwt(jwt.claims, good_until, key)

    def named_by(self, jwt: UnverifiedJwt) -> Issuer | None:
        """The trusted issuer that a JWT claims to be of."""
        keys = self._by_url.get(issuer_of(jwt))
        return keys.issuer if keys is not None else None

    async def round(self) -> None:
        """Look at the keys that are due, all at once."""
        await asyncio.gather(*(keys.refresh() for keys in list(self._by_url.values())))

    async def ping(self) -> None:
        """Raises `IssuerUnavailable` for an issuer whose keys could not be had at the last look."""
        for keys in self._by_url.values():
            if keys.failure is not None:
                raise IssuerUnavailable(keys.issuer.url, keys.failure)

    async def aclose(self) -> None:
        """Give up the looks that are under way."""
        for keys in (*self._by_url.values(), *self._retired):
            await keys.aclose()


def issuer_of(jwt: UnverifiedJwt) -> str:
    """The unverified `iss`. Raises `JwtRefused`."""
    return _text(jwt, "iss", "issuer")


def subject_of(jwt: UnverifiedJwt) -> str:
    """The unverified `sub`. Raises `JwtRefused`."""
    return _text(jwt, "sub", "subject")


def is_meant_for(claims: dict[str, Any], audience: str) -> bool:
    """Whether `aud`, one text or a list of them (RFC 7519 §4.1.3), has exactly this."""
    found = claims.get("aud")
    if isinstance(found, list):
        return all(isinstance(each, str) for each in found) and audience in found
    return isinstance(found, str) and found == audience


def _text(jwt: UnverifiedJwt, claim: str, reason: str) -> str:
    value = jwt.claims.get(claim)
    if not isinstance(value, str) or not value:
        raise JwtRefused(reason)
    return value


def _in_time(claims: dict[str, Any], now: float) -> float:
    """When the JWT ends. Raises `JwtRefused` if that has been, or its time has not come."""
    expires = _moment(claims, "exp")
    if expires is None:
        raise JwtRefused("no_expiry")
    if expires <= now:
        raise JwtRefused("expired")
    for claim in ("nbf", "iat"):
        begins = _moment(claims, claim)
        if begins is not None and begins > now + CLOCK_SKEW.total_seconds():
            raise JwtRefused("not_yet")
    return expires


def _moment(claims: dict[str, Any], claim: str) -> float | None:
    """A NumericDate (RFC 7519 §2), None if it is not there. Raises `JwtRefused`."""
    if claim not in claims:
        return None
    value = claims[claim]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise JwtRefused("malformed")
    try:
        return float(value)
    except OverflowError:
        raise JwtRefused("malformed") from None
