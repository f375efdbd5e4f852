"""Reads what a browser sends, cookies and forms, within limits and without believing any of it."""

from collections.abc import Callable, Collection, Mapping
from urllib.parse import urlsplit

from starlette.requests import Request

from broker.web.bodies import read_within
from broker.web.parameters import unique_parameters
from broker.web.problems import Problem

FORM_LIMIT = 4096
"""Bytes. The broker's own forms have about three hundred."""

_FIELDS_LIMIT = 10
_MEDIA_TYPE = "application/x-www-form-urlencoded"

_SPACES = " \t"
"""What a browser trims (RFC 6265bis §5.7). Python's `strip` would also trim the spaces of Latin-1,
and so turn a name that a neighbouring host may set into a `__Host-` name."""

Cookies = Mapping[str, Collection[str]]
"""Values by name. Several values mean several cookies, at least one of them set by another host."""


def read_cookies(request: Request) -> Cookies:
    """Return all cookies of a request, names exactly as sent, each value once.

    No name is normalised: to a browser only the exact prefix `__Host-` is one, so a similar name,
    which other hosts may set, must not pass for it.
    """
    found: dict[str, dict[str, None]] = {}
    for header in request.headers.getlist("cookie"):
        for pair in header.split(";"):
            name, separator, value = pair.partition("=")
            if separator:
                values = found.setdefault(name.strip(_SPACES), {})
                values[_unquoted(value.strip(_SPACES))] = None
    return found


def only_valid(cookies: Cookies, name: str, is_valid: Callable[[str], bool]) -> str | None:
    """Return the valid value of that name. None if there are two: one may be planted."""
    valid = [value for value in cookies.get(name, ()) if is_valid(value)]
    return valid[0] if len(valid) == 1 else None


def is_from_own_page(request: Request, own_origins: Collection[str]) -> bool:
    """True unless a header says that a page of another origin sent this form.

    Old browsers send no such header. Under `Referrer-Policy: no-referrer` browsers send `Origin:
    null` with the broker's own forms too (Fetch §3.1). So the form's token decides, and this check
    is a second line of defence.
    """
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return False
    return request.headers.get("origin", "null") in ("null", *own_origins)


async def read_form(request: Request) -> Mapping[str, str] | None:
    """Return the form's fields. None if it is no form, is too long, or repeats a field."""
    media_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if media_type != _MEDIA_TYPE:
        return None
    try:
        body = await read_within(request, FORM_LIMIT)
    except Problem:
        return None
    return unique_parameters(body, at_most=_FIELDS_LIMIT)


def origin_of(url: str) -> str:
    """Return scheme, host and port."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _unquoted(value: str) -> str:
    """Some clients quote values (RFC 6265 §4.1.1); browsers return them as set."""
    is_quoted = len(value) >= 2 and value[0] == value[-1] == '"'
    return value[1:-1] if is_quoted else value
