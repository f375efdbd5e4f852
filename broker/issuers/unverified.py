"""Takes a JWT apart (RFC 7515 §3.1, RFC 8725) and refuses whatever is not plainly a signed one.

Nothing here is believed yet: the claims only tell whose key would have to have signed them.
"""

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Any

from broker.issuers.model import ALGORITHMS, JwtRefused
from broker.strict_json import read_object

LONGEST_SUBJECT_TOKEN = 16 * 1024
"""Bytes of an end user's JWT; a directory may put many groups into it."""

_COMPACT = re.compile(rb"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")
_TYPES = frozenset({"jwt", "at+jwt", "jose"})
"""What `typ` may say (RFC 7519 §5.1, RFC 9068 §2.1, JWT-SVID §2.3): a logout token, a security
event or a proof of possession is signed with the same keys and means something else."""


@dataclass(frozen=True, slots=True)
class UnverifiedJwt:
    """A well-formed JWT that anybody may have written."""

    algorithm: str
    key_id: str | None
    type: str | None
    """`typ` in small letters, without `application/`."""
    claims: dict[str, Any]
    signed: bytes
    signature: bytes


def looks_like_jwt(credential: bytes) -> bool:
    """Whether this may be a JWT; keys that `broker callers new` makes have no dot."""
    return credential.count(b".") >= 2


def read_unverified(token: bytes, *, at_most: int) -> UnverifiedJwt:
    """The parts of a compact JWS of so many bytes at most. Raises `JwtRefused`."""
    if len(token) > at_most:
        raise JwtRefused("too_long")
    parts = _COMPACT.fullmatch(token)
    if parts is None:
        raise JwtRefused("malformed")
    header = _object(parts[1])
    algorithm, key_id, kind = header.get("alg"), header.get("kid"), header.get("typ")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise JwtRefused("algorithm")
    if "crit" in header or "b64" in header or "zip" in header or "enc" in header:
        # Nothing that changes what a signature covers, or that the sender insists on, is known.
        raise JwtRefused("critical_header")
    if not isinstance(key_id, str | None) or not isinstance(kind, str | None):
        raise JwtRefused("malformed")
    kind = kind.lower().removeprefix("application/") if kind is not None else None
    if kind is not None and kind not in _TYPES:
        raise JwtRefused("type")
    if "cty" in header:
        # Only a JWT within a JWT has one (RFC 7519 §5.2).
        raise JwtRefused("type")
    claims = _object(parts[2])
    if "events" in claims:
        # A security event or a logout token, whose `typ` may be plain (RFC 8417 §4, OpenID Connect
        # Back-Channel Logout §2.4): it tells of a user, and comes from none.
        raise JwtRefused("type")
    return UnverifiedJwt(
        algorithm=algorithm,
        key_id=key_id,
        type=kind,
        claims=claims,
        signed=token[: parts.end(2)],
        signature=_decoded(parts[3]),
    )


def _object(segment: bytes) -> dict[str, Any]:
    try:
        return read_object(_decoded(segment))
    except ValueError:
        raise JwtRefused("malformed") from None


def _decoded(segment: bytes) -> bytes:
    """The bytes that exactly this text stands for: one token must not go by several texts."""
    try:
        decoded = base64.urlsafe_b64decode(segment + b"=" * (-len(segment) % 4))
    except binascii.Error:
        raise JwtRefused("malformed") from None
    if base64.urlsafe_b64encode(decoded).rstrip(b"=") != segment:
        raise JwtRefused("malformed")
    return decoded
