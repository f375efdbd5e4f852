"""Parses a JWK set (RFC 7517) and verifies signatures with its public keys.

Imported with the first fetch of a key set, because the import takes 50 ms that a start without
issuers does not need. A private or symmetric key is never used, not even its public half.
"""

import base64
from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from broker.issuers.unverified_jwt import UnverifiedJws

_MOST_KEYS = 100
_SHORTEST_MODULUS, _LONGEST_MODULUS = 2048, 8192
"""Bits; RFC 7518 §3.3. Verification with a longer modulus takes milliseconds."""
_LARGEST_EXPONENT = 2**32
"""65537 is usual. A huge exponent makes each verification as expensive as a signature."""

_RSA = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_CURVES = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}
_EDWARDS = frozenset({"EdDSA", "Ed25519"})
_MEMBERS: Mapping[str, tuple[str, ...]] = {
    "RSA": ("n", "e"),
    "EC": ("crv", "x", "y"),
    "OKP": ("crv", "x"),
}
_PRIVATE = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"})
"""Members of the private half of a key (RFC 7518 §6.2.2, §6.3.2, §6.4; RFC 8037 §2)."""
_KINDS: Mapping[str, type[RSAKey | ECKey | OKPKey]] = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}

Identity = tuple[str | None, ...]


class VerificationKey:
    """One public key; what it verified is valid while it is `in_force`."""

    __slots__ = ("_algorithms", "_key", "identity", "in_force", "key_id")

    def __init__(
        self,
        key: RSAKey | ECKey | OKPKey,
        algorithms: frozenset[str],
        identity: Identity,
    ) -> None:
        self._key = key
        self._algorithms = algorithms
        self.identity = identity
        """Equal for the same key with the same id and use."""
        self.key_id = identity[0]
        self.in_force = True

    def fits(self, algorithm: str) -> bool:
        """True if the key is for signatures of this algorithm (RFC 8725 §3.1)."""
        return algorithm in self._algorithms

    def verify(self, jws: UnverifiedJws) -> bool:
        """True if the key's private half signed this."""
        if not self.fits(jws.algorithm):
            return False
        algorithm = JWSRegistry.algorithms[jws.algorithm]
        try:
            return algorithm.verify(jws.signed, jws.signature, self._key)
        except (JoseError, ValueError):
            return False


def read_keys(document: Mapping[str, Any]) -> list[VerificationKey]:
    """Return the usable keys of a key set; the others are ignored (RFC 7517 §5)."""
    entries = document.get("keys")
    if not isinstance(entries, list):
        return []
    keys = (_read_key(entry) for entry in entries[:_MOST_KEYS] if isinstance(entry, dict))
    return [key for key in keys if key is not None]


def _read_key(entry: Mapping[str, Any]) -> VerificationKey | None:
    kind, key_id = entry.get("kty"), entry.get("kid")
    if not isinstance(kind, str) or kind not in _MEMBERS or not isinstance(key_id, str | None):
        return None
    if not _is_for_signatures(entry) or not _PRIVATE.isdisjoint(entry):
        # Any reader of the set could sign with a private key in it (OpenID Connect Discovery §3),
        # so its signatures prove nothing.
        return None
    parts = {name: entry.get(name) for name in _MEMBERS[kind]}
    if not all(isinstance(part, str) for part in parts.values()):
        return None
    if kind == "RSA" and not _is_sound_rsa(str(parts["n"]), str(parts["e"])):
        return None
    try:
        key = _KINDS[kind].import_key({"kty": kind, **parts})  # type: ignore[dict-item]
        algorithms = _algorithms_of(key)
    except (JoseError, ValueError, TypeError, KeyError):
        return None
    named = entry.get("alg")
    if named is not None:
        algorithms &= {named} if isinstance(named, str) else set()
    if not algorithms:
        return None
    identity = (key_id, kind, *map(str, parts.values()), *sorted(algorithms))
    return VerificationKey(key, algorithms, identity)


def _is_for_signatures(entry: Mapping[str, Any]) -> bool:
    # A JWT-SVID authority has `jwt-svid` instead of `sig` (SPIFFE Trust Domain and Bundle §4.2).
    if entry.get("use", "sig") not in ("sig", "jwt-svid"):
        return False
    operations = entry.get("key_ops")
    return operations is None or (isinstance(operations, list) and "verify" in operations)


def _algorithms_of(key: RSAKey | ECKey | OKPKey) -> frozenset[str]:
    """Return the signature algorithms of a key; empty for a key of no use here."""
    public = key.public_key
    if isinstance(key, ECKey):
        name = _CURVES.get(key.curve_name)
        return frozenset({name}) if name is not None else frozenset()
    if isinstance(key, RSAKey):
        return _RSA
    return _EDWARDS if isinstance(public, Ed25519PublicKey) else frozenset()


def _is_sound_rsa(modulus: str, exponent: str) -> bool:
    """True if neither too weak nor too expensive; checked before any computation with the key."""
    try:
        n, e = _number(modulus), _number(exponent)
    except ValueError:
        return False
    is_sound_exponent = e % 2 == 1 and 3 <= e <= _LARGEST_EXPONENT
    return is_sound_exponent and _SHORTEST_MODULUS <= n.bit_length() <= _LONGEST_MODULUS


def _number(text: str) -> int:
    return int.from_bytes(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), "big")
