"""Derives one key per purpose from `SECRET_KEY` by HKDF-SHA256 (RFC 5869)."""

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from broker.secret import Secret


def derive_key(secret_key: Secret, purpose: str) -> bytes:
    """Return the 32-byte key for one purpose."""
    hkdf = HKDF(
        algorithm=SHA256(), length=32, salt=None, info=f"token-broker v1 {purpose}".encode()
    )
    return hkdf.derive(secret_key.reveal().encode())
