"""Reads the query string that a browser brings back from Google; believes none of it."""

from dataclasses import dataclass

from broker.pages.forms import fields_once
from broker.secret import Secret

QUERY_LIMIT = 8192
"""Bytes. Google allows 256 for a code; all that it sends stays well below this."""

_FIELDS_LIMIT = 30
_LONGEST = {"state": 128, "code": 2048, "iss": 255, "error": 128}


@dataclass(frozen=True, slots=True)
class Callback:
    """An authorization response (RFC 6749 §4.1.2, RFC 9207), as somebody sent it."""

    unverified_state: str
    unverified_iss: str | None
    unverified_error: str | None
    code: Secret | None


def read_query(query_string: bytes) -> dict[str, str] | None:
    """The parameters, or nothing where one comes twice (RFC 6749 §3.1) or is unreadable."""
    if len(query_string) > QUERY_LIMIT:
        return None
    return fields_once(query_string, at_most=_FIELDS_LIMIT)


def read_callback(query_string: bytes) -> Callback | None:
    """The authorization response, or nothing where it can't be one. Unknown parameters pass."""
    parameters = read_query(query_string)
    if parameters is None or "state" not in parameters:
        return None
    if any(len(parameters.get(name, "")) > limit for name, limit in _LONGEST.items()):
        return None
    code = parameters.get("code")
    return Callback(
        unverified_state=parameters["state"],
        unverified_iss=parameters.get("iss"),
        unverified_error=parameters.get("error"),
        code=Secret(code) if code else None,
    )
