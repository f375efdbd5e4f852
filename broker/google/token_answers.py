"""What the token endpoint gave, once it has been checked field by field."""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import httpx2

from broker.google.errors import GoogleUnavailable, classify_token_error
from broker.google.json_answers import json_object
from broker.google.scopes import is_scope_name, parse_scopes
from broker.secret import Secret

LONGEST_LIFE = timedelta(days=366)

_TOKEN = re.compile(r"[\x21-\x7e]{1,16384}")
"""Google promises no more than 2,048 characters for an access token; ID tokens are near that."""


@dataclass(frozen=True, slots=True)
class TokenAnswer:
    """A good answer of the token endpoint (RFC 6749 §5.1)."""

    access_token: Secret
    expires_at: datetime
    """Counted from when the request was sent, so that it is never later than Google's own idea."""
    scopes: tuple[str, ...] | None
    """As Google names them; None if the answer left them out: then they are those asked for."""
    refresh_token: Secret | None
    """None if the answer left it out: then the one held stays good."""
    id_token: Secret | None


def read_token_answer(response: httpx2.Response, *, sent_at: datetime) -> TokenAnswer:
    """Check the whole answer. Raises the `GoogleError` that it means; never a half-good token."""
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
    return TokenAnswer(
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
    """`expires_in`: a token whose life is unknown is not handed out."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise GoogleUnavailable("bad_answer")
    # NaN and Infinity, which Python reads as numbers, fail this too.
    if not 0 < value <= LONGEST_LIFE.total_seconds():
        raise GoogleUnavailable("bad_answer")
    return timedelta(seconds=value)


def _scopes(value: object) -> tuple[str, ...] | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise GoogleUnavailable("bad_answer")
    # What Google gave must not be lost for white space of another kind.
    names = parse_scopes(" ".join(value.split()))
    # An empty list is not a list left out: it must not count as all that was asked for.
    if not names or not all(map(is_scope_name, names)):
        raise GoogleUnavailable("bad_answer")
    return names
