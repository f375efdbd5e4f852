"""What Vault's answers mean: its JSON as values, its errors as one of a few kinds of no.

Of an error only its kind is kept, because its text, URL and body may show secrets.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum
from typing import Any

import hvac.exceptions
import requests

from broker.secret import Secret

_LONGEST = timedelta(days=100 * 365)
"""What is added to the present must stay a date; Vault itself knows no longer lifetime than three
times this."""


class Refusal(Enum):
    """The definite answers that are not the one asked for."""

    DENIED = "denied"
    NOTHING_THERE = "nothing there"
    VERSION_DELETED = "version deleted"
    NO_SUCH_MOUNT = "no such mount"
    NO_SUCH_NAMESPACE = "no such namespace"
    NO_SUCH_ROLE = "no such role"
    BAD_REQUEST = "bad request"


@dataclass(frozen=True, slots=True)
class VaultToken:
    """A token as Vault issued or described it."""

    token: Secret
    lasts: timedelta | None
    """From the answer on; None is for ever."""
    renewable: bool


@dataclass(frozen=True, slots=True)
class KvSecret:
    """One version of a KV v2 secret. The fields' values are secrets: show them to nobody."""

    fields: Mapping[str, object] = field(repr=False)
    version: int


@dataclass(frozen=True, slots=True)
class Away:
    """Why one address is of no use right now, in words."""

    reason: str


def kv_secret(answer: Any) -> KvSecret:
    """Raises whatever it stumbles over if the answer isn't Vault's, as the next three do."""
    fields = answer["data"]["data"]
    if not isinstance(fields, dict):
        raise TypeError("not a KV v2 secret")
    return KvSecret(fields, int(answer["data"]["metadata"]["version"]))


def token_from_login(answer: Any) -> VaultToken:
    auth = answer["auth"]
    lasts = _lifetime(auth["lease_duration"]) or None
    return VaultToken(_token(auth["client_token"]), lasts, bool(auth["renewable"]))


def token_from_renewal(answer: Any) -> VaultToken:
    auth = answer["auth"]
    # Zero is not for ever here, but what a token at the end of its maximum life is given.
    lasts = _lifetime(auth["lease_duration"])
    return VaultToken(_token(auth["client_token"]), lasts, bool(auth["renewable"]))


def token_from_lookup(answer: Any) -> VaultToken:
    data = answer["data"]
    lasts = None if data.get("expire_time") is None else _lifetime(data["ttl"])
    return VaultToken(_token(data["id"]), lasts, bool(data.get("renewable")))


def _token(text: Any) -> Secret:
    if not isinstance(text, str) or not text:
        raise TypeError("not a token")  # As where a login waits for a second factor.
    return Secret(text)


def _lifetime(seconds: Any) -> timedelta:
    return min(timedelta(seconds=int(seconds)), _LONGEST)


def seal_state(answer: Any) -> Away | None:
    """None if the server can work."""
    if not answer["initialized"]:
        return Away("is not initialised")
    return Away("is sealed") if answer["sealed"] else None


def meaning_of(error: hvac.exceptions.VaultError) -> Refusal | Away:
    """Whether an error is this address's trouble, or an answer that every address would give."""
    text = str(error.text).lower()
    match error:
        case hvac.exceptions.Forbidden() | hvac.exceptions.Unauthorized():
            return Refusal.DENIED
        case hvac.exceptions.InvalidPath():
            return _what_is_missing(error.json, text)
        case hvac.exceptions.InvalidRequest():
            return _what_is_bad(text)
        case hvac.exceptions.InternalServerError() if "cannot renew" in text:
            return Refusal.BAD_REQUEST  # A 500 in name only: the token is past its maximum life.
        case hvac.exceptions.VaultDown():
            return Away("is sealed" if "sealed" in text else "is not ready")
        case hvac.exceptions.VaultNotInitialized():
            return Away("is not initialised")
        case hvac.exceptions.RateLimitExceeded():
            return Away("limits the rate of requests")
    return Away("fails on its side")


def _what_is_bad(text: str) -> Refusal | Away:
    if "to an https server" in text:
        return Away("speaks https: correct VAULT_ADDR")
    if "upgrading from non-versioned" in text:
        return Away("is still upgrading its KV mount")
    if re.search("invalid role name|role .* could not be found", text):
        return Refusal.NO_SUCH_ROLE
    return Refusal.BAD_REQUEST


def _what_is_missing(document: object, text: str) -> Refusal:
    if isinstance(document, dict) and isinstance(document.get("data"), dict):
        return Refusal.VERSION_DELETED  # Metadata without data: the version was there once.
    if "namespace not found" in text:
        return Refusal.NO_SUCH_NAMESPACE
    if "no handler for route" in text:
        return Refusal.NO_SUCH_MOUNT
    return Refusal.NOTHING_THERE


def words_for(error: Exception) -> str:
    """What kept a request from being answered, to follow the address in a sentence."""
    match error:
        case requests.exceptions.SSLError():
            return "fails TLS (set VAULT_CACERT if its certificate is of a CA of your own)"
        case requests.exceptions.Timeout():
            return "does not answer in time"
        case requests.exceptions.InvalidHeader() | UnicodeError():
            return "can't be asked: VAULT_TOKEN or VAULT_NAMESPACE has a character out of place"
        case requests.exceptions.ConnectionError():
            return "can't be reached"
        case requests.exceptions.RequestException():
            return "can't be asked (is VAULT_ADDR right?)"
    return "can't be asked: the CA file that VAULT_CACERT names can't be read"
