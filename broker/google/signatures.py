"""Google's signature on a JWT: RS256 by a key that Google publishes, and no other way.

What the claims say, and to whom, is still to be checked by whoever asks.
"""

import re
from collections.abc import Collection
from functools import cache
from typing import TYPE_CHECKING, Any

from broker.google.errors import SignedTokenRefused
from broker.google.signing_keys import SigningKeys

if TYPE_CHECKING:
    from joserfc.jwk import RSAKey
    from joserfc.jws import JWSRegistry

_ALGORITHM = "RS256"
_BLANK = re.compile(
    "[ \u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164"
    "\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
"""What Python calls printable and nobody sees: joiners, fillers, variation selectors (Unicode's
Default_Ignorable_Code_Point)."""


async def signed_claims(
    keys: SigningKeys,
    unverified_token: str,
    longest: int,
    *,
    refused: type[SignedTokenRefused],
    needs_key_id: bool = False,
    types: Collection[str] = (),
) -> dict[str, Any]:
    """The payload, once its signature is good.

    Where there are `types`, a token that says by `typ` what it is must be one of them. Raises
    `refused` with a reason that quotes nothing; `GoogleUnavailable` if the keys can't be had.
    """
    header = _header(unverified_token, longest, refused)
    if types and not _is_one_of(types, header.get("typ")):
        raise refused("typ")
    kid: str | None = header.get("kid")
    if kid is None and needs_key_id:
        raise refused("unknown_key")
    key = await keys.find(kid)
    if key is None:
        raise refused("unknown_key")
    try:
        return _claims_signed_with(key, unverified_token, refused)
    except SignedTokenRefused:
        newest = await keys.find_newest(kid)
        if newest is None or newest is key:
            raise
    return _claims_signed_with(newest, unverified_token, refused)


def is_plain(text: str) -> bool:
    """Printable, and without spaces or blanks that could make two identities look like one."""
    return text.isprintable() and _BLANK.search(text) is None


@cache
def _rs256() -> "JWSRegistry":
    from joserfc.jws import JWSRegistry  # noqa: PLC0415  (see `serve_until`)

    # Unknown header parameters are ignored, as RFC 7515 §4 demands; `crit` is refused below.
    return JWSRegistry(algorithms=[_ALGORITHM], strict_check_header=False)


def _claims_signed_with(
    key: "RSAKey", token: str, refused: type[SignedTokenRefused]
) -> dict[str, Any]:
    from joserfc import jwt  # noqa: PLC0415  (see `serve_until`)
    from joserfc.errors import JoseError  # noqa: PLC0415

    try:
        return jwt.decode(token, key, registry=_rs256()).claims
    except (JoseError, ValueError, RecursionError):
        # Not chained: a decoding error may quote the token.
        raise refused("bad_signature") from None


def _is_one_of(types: Collection[str], typ: object) -> bool:
    """As RFC 7515 §4.1.9 compares media types: without `application/`, and in any case."""
    if typ is None:
        return True
    return isinstance(typ, str) and typ.lower().removeprefix("application/") in types


def _header(token: str, longest: int, refused: type[SignedTokenRefused]) -> dict[str, Any]:
    """A header that promises nothing but a plain RS256 signature, by a key with a proper name."""
    from joserfc import jws  # noqa: PLC0415  (see `serve_until`)
    from joserfc.errors import JoseError  # noqa: PLC0415

    if len(token) > longest or not token.isascii():
        raise refused("malformed")
    try:
        header: object = jws.extract_compact(token.encode(), registry=_rs256()).headers()
    except (JoseError, ValueError, TypeError, RecursionError):
        raise refused("malformed") from None
    if not isinstance(header, dict):
        raise refused("malformed")
    if header.get("alg") != _ALGORITHM:
        raise refused("alg")
    if "crit" in header or "b64" in header:
        raise refused("crit")
    if not isinstance(header.get("kid"), str | None):
        raise refused("malformed")
    return header
