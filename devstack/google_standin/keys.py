"""The keys that sign tokens, the JWKS that publishes them, and JWTs, genuine and forged."""

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa


def base64url(data: bytes) -> str:
    """Encode without padding (RFC 7515 §2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class SigningKey:
    """An RSA key with its `kid`."""

    def __init__(self, private_key: rsa.RSAPrivateKey) -> None:
        self._private_key = private_key
        self._numbers = private_key.public_key().public_numbers()
        digest = hashlib.sha1(str(self._numbers.n).encode(), usedforsecurity=False)
        self.kid = digest.hexdigest()

    @classmethod
    def generate(cls) -> "SigningKey":
        return cls(rsa.generate_private_key(public_exponent=65537, key_size=2048))

    @classmethod
    def from_pem(cls, pem: str) -> "SigningKey":
        key = serialization.load_pem_private_key(pem.encode(), password=None)
        if not isinstance(key, rsa.RSAPrivateKey):
            raise TypeError("the signing key must be an RSA key")
        return cls(key)

    def to_pem(self) -> str:
        return self._private_key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ).decode()

    def public_pem(self) -> str:
        """Return the public key. A classic forgery uses it as an HMAC secret."""
        return (
            self._private_key.public_key()
            .public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
            .decode()
        )

    def public_jwk(self) -> dict[str, str]:
        """Return the public key in the form of RFC 7517."""
        n, e = self._numbers.n, self._numbers.e
        return {
            "kty": "RSA",
            "use": "sig",
            "alg": "RS256",
            "kid": self.kid,
            "n": base64url(n.to_bytes((n.bit_length() + 7) // 8, "big")),
            "e": base64url(e.to_bytes((e.bit_length() + 7) // 8, "big")),
        }

    def sign(self, signing_input: bytes) -> bytes:
        return self._private_key.sign(signing_input, padding.PKCS1v15(), hashes.SHA256())


class KeyRing:
    """The newest key signs; all keys are published."""

    def __init__(self, pems: list[str] | None = None) -> None:
        self._keys = [SigningKey.from_pem(pem) for pem in pems or []] or [SigningKey.generate()]

    @property
    def current(self) -> SigningKey:
        return self._keys[-1]

    def rotate(self, *, keep_old: bool = True) -> str:
        """Sign with a new key; return its `kid`."""
        self._keys = [*(self._keys if keep_old else []), SigningKey.generate()]
        return self.current.kid

    def forget_old(self) -> None:
        """Publish only the key that signs."""
        self._keys = self._keys[-1:]

    def to_pems(self) -> list[str]:
        return [key.to_pem() for key in self._keys]

    def jwks(self) -> dict[str, list[dict[str, str]]]:
        return {"keys": [key.public_jwk() for key in self._keys]}


@cache
def unpublished_key() -> SigningKey:
    """Return a key that no JWKS publishes, for forgeries."""
    return SigningKey.generate()


def rs256(key: SigningKey, claims: Mapping[str, Any], *, kid: str | None = None) -> str:
    """Sign a JWT. `kid` may be wrong; an empty one is left out."""
    header = {"alg": "RS256", "kid": key.kid if kid is None else kid, "typ": "JWT"}
    if not header["kid"]:
        del header["kid"]
    signing_input = _signing_input(header, claims)
    return f"{signing_input}.{base64url(key.sign(signing_input.encode()))}"


def hs256(secret: str, claims: Mapping[str, Any], *, kid: str) -> str:
    """Forge a JWT with an HMAC whose secret the client knows."""
    signing_input = _signing_input({"alg": "HS256", "kid": kid, "typ": "JWT"}, claims)
    mac = hmac.new(secret.encode(), signing_input.encode(), hashlib.sha256).digest()
    return f"{signing_input}.{base64url(mac)}"


def unsigned(claims: Mapping[str, Any]) -> str:
    """Return a JWT with `alg: none` (RFC 7519 §6)."""
    return _signing_input({"alg": "none", "typ": "JWT"}, claims) + "."


def _signing_input(header: Mapping[str, Any], claims: Mapping[str, Any]) -> str:
    parts = (json.dumps(part, separators=(",", ":")).encode() for part in (header, claims))
    return ".".join(base64url(part) for part in parts)
