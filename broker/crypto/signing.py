"""Signs values that travel through a browser and must return unaltered: links, state, cookies.

A signature proves that the broker made a value for one purpose. The database decides whether the
value may still be used.
"""

import base64
import hashlib
import hmac
import json
from collections.abc import Sequence

from broker.crypto.keys import derive_key
from broker.secret import Secret

SIGNATURE_LENGTH = 43
"""Characters: 32 bytes in base64url without padding."""


class Signer:
    """HMAC-SHA256 for one purpose. The first key signs, all verify."""

    def __init__(self, secret_keys: Sequence[Secret], purpose: str) -> None:
        if not secret_keys:
            raise ValueError("no key to sign with")
        self._keys = tuple(derive_key(key, purpose) for key in secret_keys)

    def sign(self, value: str, *, bound_to: Sequence[str] = ()) -> str:
        """Return the value with its signature, which verifies only with the same `bound_to`."""
        return f"{value}.{_signature(self._keys[0], value, bound_to)}"

    def verify(self, unverified: str, *, bound_to: Sequence[str] = ()) -> str | None:
        """Return the signed value, or None. Takes the same time wherever the difference is."""
        value, _, signature = unverified.rpartition(".")
        given = signature.encode(errors="replace")
        # All keys are tried, so that the time does not show which one signed.
        matches = [
            hmac.compare_digest(_signature(key, value, bound_to).encode(), given)
            for key in self._keys
        ]
        return value if any(matches) else None


def _signature(key: bytes, value: str, bound_to: Sequence[str]) -> str:
    # JSON keeps the parts apart for any content.
    message = json.dumps([value, *bound_to]).encode("ascii")
    digest = hmac.digest(key, message, hashlib.sha256)
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")
