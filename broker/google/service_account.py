"""A service account's key file, and the signed token by which it calls one of Google's APIs.

The private key leaves here in signatures only, and no error quotes the file.
"""

import json
from dataclasses import dataclass
from datetime import timedelta

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import RSAKey

from broker.clock import Clock
from broker.secret import Secret

LONGEST_KEY_FILE = 64 * 1024
_LIFE = timedelta(hours=1)
"""Google wants exactly this."""


class ServiceAccountError(Exception):
    """The key file can't be used; the message says why."""


@dataclass(frozen=True)
class ServiceAccount:
    """Who calls, and with which key."""

    email: str
    key_id: str
    private_key: Secret

    def token(self, audience: str, clock: Clock) -> Secret:
        """A JWT that Google takes in place of an access token. Raises `ServiceAccountError`."""
        now = int(clock.epoch())
        claims = {
            "iss": self.email,
            "sub": self.email,
            "aud": audience,
            "iat": now,
            "exp": now + int(_LIFE.total_seconds()),
        }
        header = {"alg": "RS256", "typ": "JWT", "kid": self.key_id}
        try:
            key = RSAKey.import_key(self.private_key.reveal())
            return Secret(jwt.encode(header, claims, key))
        except (JoseError, ValueError, TypeError, AttributeError):
            # Not chained: it may quote the key.
            raise ServiceAccountError("its private_key is no RSA key in PEM") from None


def read_service_account(text: str) -> ServiceAccount:
    """From what the console downloads. Raises `ServiceAccountError`."""
    if len(text) > LONGEST_KEY_FILE:
        raise ServiceAccountError("it is too long")
    try:
        document: object = json.loads(text)
    except (ValueError, RecursionError):
        raise ServiceAccountError("it is not JSON") from None
    if not isinstance(document, dict) or document.get("type") != "service_account":
        raise ServiceAccountError(
            "it is no service account's key (create one in the console: JSON key type)"
        )
    for name in ("client_email", "private_key_id", "private_key"):
        if not isinstance(document.get(name), str) or not document[name]:
            raise ServiceAccountError(f"it has no {name}")
    return ServiceAccount(
        document["client_email"], document["private_key_id"], Secret(document["private_key"])
    )
