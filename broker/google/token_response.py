"""Reads a token response (RFC 6749 §5.1) and checks it field by field."""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import httpx2

from broker.google.errors import GoogleUnavailable, classify_token_error
from broker.outbound.responses import json_object
from broker.scopes import is_scope_name, parse_scopes
from broker.secret import Secret

LONGEST_LIFETIME = timedelta(days=366)

_TOKEN = re.compile(r"[\x21-\x7e]{1,16384}")
"""Google's access tokens have at most 2,048 characters; ID tokens are about as long."""


@dataclass(frozen=True, slots=True)
class TokenResponse:
    """A successful response of the token endpoint (RFC 6749 §5.1)."""

    access_token: Secret
    expires_at: datetime
    """Counted from the sending of the request, so that it is never later than at Google."""
    scopes: tuple[str, ...] | None
    """As Google names them; None if the response omits them: then they are those requested."""
    refresh_token: Secret | None
    """None if the response omits it: then the current one stays valid."""
    id_token: Secret | None


def read_token_response(response: httpx2.Response, *, sent_at: datetime) -> TokenResponse:
    """Return a response that is valid as a whole. Raises the `GoogleError` that it means."""
    document = json_object(response)
    if response.status_code != 200:
        raise classify_token_error(response)
    if document is None:
        raise GoogleUnavailable("not_json")
    token_type = document.get("token_type")
    if "error" in document or not isinstance(token_type, str) or token_type.lower() != "bearer":
        raise GoogleUnavailable("bad_answer")
    access_token = _token(document, "access_token")
    if access_token is None:
        raise GoogleUnavailable("bad_answer")
    return TokenResponse(
        access_token=access_token,
        expires_at=sent_at + _lifetime(document.get("expires_in")),
        scopes=_scopes(document.get("scope")),
        refresh_token=_token(document, "refresh_token"),
        id_token=_token(document, "id_token"),
    )


def _token(document: dict[str, Any], name: str) -> Secret | None:
    value = document.get(name)
    if value is None or value == "":
        return None
    if not isinstance(value, str) or _TOKEN.fullmatch(value) is None:
        raise GoogleUnavailable("bad_answer")
    return Secret(value)


def _lifetime(value: object) -> timedelta:
    """Return `expires_in`; a token of unknown lifetime is not used."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise GoogleUnavailable("bad_answer")
    # NaN and Infinity, which Python reads as numbers, fail this too.
    if not 0 < value <= LONGEST_LIFETIME.total_seconds():
        raise GoogleUnavailable("bad_answer")
    return timedelta(seconds=value)


def _scopes(value: object) -> tuple[str, ...] | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise GoogleUnavailable("bad_answer")
    # Other white space between names must not lose what Google granted.
    names = parse_scopes(" ".join(value.split()))
    # An empty list is not an omitted list: it must not count as all that was requested.
    if not names or not all(map(is_scope_name, names)):
        raise GoogleUnavailable("bad_answer")
    return names
