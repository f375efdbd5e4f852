"""Parsers of settings: from a setting's text to its value.

Parsers are pure and raise `MalformedError`. A parser accepts its setting's default; that is the
empty text if there is none.
"""

import base64
import binascii
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import TypeVar
from urllib.parse import urlsplit

from broker.scopes import is_scope_name
from broker.secret import Secret
from broker.settings.model import ALWAYS_REQUESTED, Listen
from broker.settings.urls import is_database_url, is_secure_url

CALLBACK_PATH = "/auth/google/callback"

_LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
_MAX_RETENTION_DAYS = 36_500
_STALE_SECONDS = range(2, 86_401)
"""Two polls on a busy machine can be almost two seconds apart. No token lives for a day."""
_MIN_KEY_BYTES = 32
_WEBHOOK_PREFIX = "whsec_"
_WEBHOOK_KEY_BYTES = range(24, 64 + 1)

_Choice = TypeVar("_Choice", bound=str)


class MalformedError(ValueError):
    """A setting's text is malformed.

    Each complaint continues a sentence that begins with the setting's name. It shows no part of
    the text, which may be a secret.
    """

    def __init__(self, *complaints: str) -> None:
        super().__init__("; ".join(complaints))
        self.complaints = complaints


def one_of(*choices: _Choice, later: str | None = None) -> Callable[[str], _Choice]:
    """Return a parser of one of these texts; `later` is a choice of a later release."""

    def parse(text: str) -> _Choice:
        for choice in choices:
            if choice == text:
                return choice
        if text == later:
            raise MalformedError(f"={later} is not in this release; use {_alternatives(choices)}")
        few = f"one of {', '.join(choices)}" if len(choices) > 2 else _alternatives(choices)
        raise MalformedError(f"must be {few}")

    return parse


def _alternatives(choices: Sequence[str]) -> str:
    *others, last = choices
    return f"{', '.join(others)} or {last}" if others else last


def text_or_none(text: str) -> str | None:
    return text or None


def log_level(text: str) -> str:
    """Parse a level's name in any case."""
    return one_of(*_LOG_LEVELS)(text.upper())


def listen_address(text: str) -> Listen:
    """Parse `host:port` or `[address]:port`."""
    match = re.fullmatch(
        r"(?:\[(?P<six>[0-9a-fA-F:.]+)\]|(?P<host>[^:\[\]\s]+)):(?P<port>[0-9]{1,5})", text
    )
    if match is None or int(match["port"]) > 65535:
        raise MalformedError("must be host:port, for example 127.0.0.1:8000")
    return Listen(match["six"] or match["host"], int(match["port"]))


def networks(text: str) -> tuple[IPv4Network | IPv6Network, ...]:
    """Parse addresses and networks with commas between."""
    try:
        return tuple(map(ip_network, _comma_separated(text)))
    except ValueError:
        raise MalformedError(
            "must be addresses or networks with commas between, for example "
            "10.0.0.0/8,192.0.2.7 (in a network, the bits behind the prefix are 0)"
        ) from None


def redirect_uris(text: str) -> tuple[str, ...]:
    """Parse callback URLs with commas between."""
    uris = _comma_separated(text)
    complaints = [
        (f", number {number}" if len(uris) > 1 else "") + f" {complaint}"
        for number, uri in enumerate(uris, start=1)
        for complaint in _redirect_uri_complaints(uri)
    ]
    if len(set(uris)) != len(uris):
        complaints.append(" names one address twice")
    if complaints:
        raise MalformedError(*complaints)
    return uris


def _redirect_uri_complaints(uri: str) -> Iterator[str]:
    if not is_secure_url(uri):
        yield "must be https (plain http only on a loopback host)"
        return
    parts = urlsplit(uri)
    if parts.query or parts.fragment or parts.username is not None:
        yield "must have no query, fragment or user name"
    if parts.path != CALLBACK_PATH:
        yield f"must have the path {CALLBACK_PATH}"


def scopes(text: str) -> tuple[str, ...]:
    """Parse space-separated scopes; the identity scopes are added in front."""
    requested = text.split()
    if any("," in scope for scope in requested):
        raise MalformedError("has a comma: separate scopes with spaces")
    if not all(map(is_scope_name, requested)):
        raise MalformedError("has a name with a character that no scope may have")
    return tuple(dict.fromkeys((*ALWAYS_REQUESTED, *requested)))


def secure_url(text: str) -> str:
    if not is_secure_url(text):
        raise MalformedError("must be an https address (plain http only on a loopback host)")
    return text


def vault_addresses(text: str) -> tuple[str, ...]:
    """Parse URLs with commas between; trailing slashes are removed."""
    addresses = tuple(address.rstrip("/") for address in _comma_separated(text))
    if not all(map(is_secure_url, addresses)):
        raise MalformedError(
            "must be one or more https addresses with commas between (plain http only on a "
            "loopback host)"
        )
    return addresses


def webhook_url(text: str) -> str:
    if not text:
        return text
    url = secure_url(text)
    if not url.isascii() or not url.isprintable() or " " in url:
        raise MalformedError("must be an https address (plain http only on a loopback host)")
    parts = urlsplit(url)
    if parts.fragment or parts.username is not None:
        raise MalformedError("must have no fragment or user name")
    return url


def database_url(text: str) -> Secret:
    """Parse a PostgreSQL URL, which may hold a password."""
    if text and not re.match(r"postgres(ql)?://", text):
        raise MalformedError("must begin with postgresql://")
    if text and not is_database_url(text):
        raise MalformedError(
            "can't be read as an address; are special characters in its password "
            "percent-encoded? (/ is %2F, ? is %3F, # is %23, @ is %40)"
        )
    return Secret(text)


def optional_database_url(text: str) -> Secret | None:
    return database_url(text) if text else None


def secret_keys(text: str) -> tuple[Secret, ...]:
    """Parse keys with commas between."""
    keys = _secrets(text)
    complaints = [
        f": key {number} of {len(keys)} is shorter than {_MIN_KEY_BYTES} bytes"
        for number, key in enumerate(keys, start=1)
        if len(key.reveal().encode()) < _MIN_KEY_BYTES
    ]
    if complaints:
        raise MalformedError(*complaints)
    return keys


def webhook_secrets(text: str) -> tuple[Secret, ...]:
    """Parse Standard Webhooks 1.0.0 secrets with commas between."""
    secrets = _secrets(text)
    complaints = [
        f": key {number} of {len(secrets)} is not whsec_ and the base64 of 24 to 64 random bytes"
        for number, secret in enumerate(secrets, start=1)
        if _webhook_key(secret) is None
    ]
    if complaints:
        raise MalformedError(*complaints)
    return secrets


def _secrets(text: str) -> tuple[Secret, ...]:
    secrets = tuple(map(Secret, _comma_separated(text)))
    if text and not secrets:
        raise MalformedError("holds no key")
    return secrets


def signing_key(secret: Secret) -> bytes:
    """Decode a webhook secret. Raises `ValueError` for one that the settings would reject."""
    key = _webhook_key(secret)
    if key is None:
        raise ValueError("not a webhook secret")
    return key


def _webhook_key(secret: Secret) -> bytes | None:
    text = secret.reveal()
    try:
        key = base64.b64decode(text.removeprefix(_WEBHOOK_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        return None
    return key if text.startswith(_WEBHOOK_PREFIX) and len(key) in _WEBHOOK_KEY_BYTES else None


def stale_limit(text: str) -> timedelta | None:
    """Parse a number of seconds; None if not set."""
    if not text:
        return None
    if not re.fullmatch(r"[0-9]{1,5}", text) or int(text) not in _STALE_SECONDS:
        raise MalformedError(
            f"must be a whole number of seconds from {_STALE_SECONDS[0]} to {_STALE_SECONDS[-1]}; "
            "leave it unset to serve cached tokens until they expire"
        )
    return timedelta(seconds=int(text))


def retention(text: str) -> timedelta | None:
    """Parse a number of days; None for ever."""
    if not re.fullmatch(r"[0-9]{1,5}", text) or int(text) > _MAX_RETENTION_DAYS:
        raise MalformedError(
            f"must be a number of days up to {_MAX_RETENTION_DAYS}, or 0 to keep audit records "
            "for ever"
        )
    return timedelta(days=int(text)) if int(text) else None


def _comma_separated(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())
