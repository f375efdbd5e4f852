"""Parses JWTs (RFC 7515 §3.1, RFC 8725) and checks their claims. Verifies no signature.

What is parsed here is unverified: anyone may have written it. Its claims only select the key that
must have signed it.
"""

import base64
import binascii
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from broker.issuers.model import ALGORITHMS, JwtRefused
from broker.strict_json import read_object

LONGEST_SUBJECT_TOKEN = 16 * 1024
"""Bytes of an end user's JWT; a directory may put many groups into it."""
CLOCK_SKEW = timedelta(seconds=60)
"""Allowed for `iat` and `nbf`, if an issuer's clock is ahead. None for `exp`: a JWT that lives a
minute or more tolerates a clock that is a little off."""

_COMPACT = re.compile(rb"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]*)")
_CRITICAL = frozenset({"crit", "b64", "zip", "enc"})
"""Header parameters that change what a signature covers, or that the sender insists on."""
_TYPES = frozenset({"jwt", "at+jwt", "jose"})
"""Accepted `typ` (RFC 7519 §5.1, RFC 9068 §2.1, JWT-SVID §2.3). A logout token, a security event or
a proof of possession is signed with the same keys and means something else."""
_BLANK = re.compile(
    "[ \u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164"
    "\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
"""Characters that Python calls printable but that are invisible: joiners, fillers, variation
selectors (Unicode's Default_Ignorable_Code_Point)."""


@dataclass(frozen=True, slots=True)
class UnverifiedJws:
    """A well-formed JWS (RFC 7515) in compact serialization."""

    algorithm: str
    key_id: str | None
    type: str | None
    """`typ` in lower case, without `application/` (RFC 7515 §4.1.9)."""
    payload: bytes
    signed: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class UnverifiedJwt(UnverifiedJws):
    """A well-formed JWT."""

    claims: dict[str, Any]


def looks_like_jwt(credential: bytes) -> bool:
    """True if this may be a JWT; a key that `broker callers new` makes has no dot."""
    return credential.count(b".") >= 2


def read_unverified(token: bytes, *, at_most: int) -> UnverifiedJwt:
    """Parse a JWT of at most `at_most` bytes. Raises `JwtRefused`."""
    jws = read_unverified_jws(token, at_most=at_most, algorithms=ALGORITHMS, types=_TYPES)
    claims = _object(jws.payload)
    if "events" in claims:
        # A security event or a logout token, whose `typ` may be plain (RFC 8417 §4, OpenID Connect
        # Back-Channel Logout §2.4): it is about a user, not from one.
        raise JwtRefused("type")
    return UnverifiedJwt(
        algorithm=jws.algorithm,
        key_id=jws.key_id,
        type=jws.type,
        payload=jws.payload,
        signed=jws.signed,
        signature=jws.signature,
        claims=claims,
    )


def read_unverified_jws(
    token: bytes,
    *,
    at_most: int,
    algorithms: Collection[str],
    types: Collection[str] | None = None,
) -> UnverifiedJws:
    """Parse a JWS of at most `at_most` bytes. Raises `JwtRefused`.

    With `types`, a `typ` must be one of them; a token without `typ` passes.
    """
    if len(token) > at_most:
        raise JwtRefused("too_long")
    parts = _COMPACT.fullmatch(token)
    if parts is None:
        raise JwtRefused("malformed")
    header, payload, signature = map(_decoded, parts.groups())
    members = _object(header)
    algorithm, key_id, kind = members.get("alg"), members.get("kid"), members.get("typ")
    if not isinstance(algorithm, str) or algorithm not in algorithms:
        raise JwtRefused("algorithm")
    if not _CRITICAL.isdisjoint(members):
        raise JwtRefused("critical_header")
    if not isinstance(key_id, str | None):
        raise JwtRefused("malformed")
    return UnverifiedJws(
        algorithm=algorithm,
        key_id=key_id,
        type=_checked_type(kind, types, has_content_type="cty" in members),
        payload=payload,
        signed=token[: parts.end(2)],
        signature=signature,
    )


def unverified_issuer(jwt: UnverifiedJwt) -> str:
    """Return the `iss` of a JWT. Raises `JwtRefused`."""
    return _text(jwt.claims, "iss", "issuer")


def unverified_subject(jwt: UnverifiedJwt) -> str:
    """Return the `sub` of a JWT. Raises `JwtRefused`."""
    return _text(jwt.claims, "sub", "subject")


def has_audience(claims: Mapping[str, Any], audience: str) -> bool:
    """True if `aud`, a string or a list of strings (RFC 7519 §4.1.3), contains exactly this."""
    found = claims.get("aud")
    if isinstance(found, list):
        return all(isinstance(each, str) for each in found) and audience in found
    return isinstance(found, str) and found == audience


def check_times(claims: Mapping[str, Any], now: float) -> float:
    """Return the expiry, in seconds since 1970, of a JWT that is valid now (RFC 7519 §4.1.4-6).

    Raises `JwtRefused` if it has expired, is not valid yet, or has no expiry.
    """
    if "exp" not in claims:
        raise JwtRefused("no_expiry", claim="exp")
    expires = _numeric_date_of(claims, "exp")
    if expires <= now:
        raise JwtRefused("expired", claim="exp")
    for claim in ("nbf", "iat"):
        if claim in claims and _numeric_date_of(claims, claim) > now + CLOCK_SKEW.total_seconds():
            raise JwtRefused("not_yet", claim=claim)
    return expires


def numeric_date(value: object) -> float | None:
    """Return a NumericDate (RFC 7519 §2), or None for anything but a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        seconds = float(value)
    except OverflowError:
        return None
    return seconds if math.isfinite(seconds) else None


def is_unambiguous(text: str) -> bool:
    """True if no two such identifiers look alike: printable, without spaces and blanks."""
    return text.isprintable() and _BLANK.search(text) is None


def _checked_type(
    kind: object, types: Collection[str] | None, *, has_content_type: bool
) -> str | None:
    if types is None:
        return kind if isinstance(kind, str) else None
    if not isinstance(kind, str | None):
        raise JwtRefused("malformed")
    kind = kind.lower().removeprefix("application/") if kind is not None else None
    # Only a JWT within a JWT has a content type (RFC 7519 §5.2).
    if has_content_type or (kind is not None and kind not in types):
        raise JwtRefused("type")
    return kind


def _numeric_date_of(claims: Mapping[str, Any], claim: str) -> float:
    seconds = numeric_date(claims[claim])
    if seconds is None:
        raise JwtRefused("malformed", claim=claim)
    return seconds


def _text(claims: Mapping[str, Any], claim: str, reason: str) -> str:
    value = claims.get(claim)
    if not isinstance(value, str) or not value:
        raise JwtRefused(reason, claim=claim)
    return value


def _object(text: bytes) -> dict[str, Any]:
    try:
        return read_object(text)
    except ValueError:
        raise JwtRefused("malformed") from None


def _decoded(segment: bytes) -> bytes:
    """Decode base64url; refuses a second spelling of the same bytes, so that a token has one."""
    try:
        decoded = base64.urlsafe_b64decode(segment + b"=" * (-len(segment) % 4))
    except binascii.Error:
        raise JwtRefused("malformed") from None
    if base64.urlsafe_b64encode(decoded).rstrip(b"=") != segment:
        raise JwtRefused("malformed")
    return decoded
