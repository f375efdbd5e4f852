"""Reads the cookies of a request exactly as they were set; believes none of them.

No name is mended: to a browser only the very prefix `__Host-` is one, and what it lets others set
under a name that merely looks so must not pass for it.
"""

from collections.abc import Callable, Collection, Mapping

from starlette.requests import Request

_SPACES = " \t"
"""All that a browser trims (RFC 6265bis §5.7). Python's `strip` would also trim bytes that are
spaces in Latin-1, and so make a `__Host-` name of one that anybody near may set."""

Cookies = Mapping[str, Collection[str]]
"""By name; several values where there are several cookies, of which one is somebody else's."""


def cookies_of(request: Request) -> Cookies:
    """All that came, each value once."""
    found: dict[str, dict[str, None]] = {}
    for header in request.headers.getlist("cookie"):
        for pair in header.split(";"):
            name, separator, value = pair.partition("=")
            if separator:
                values = found.setdefault(name.strip(_SPACES), {})
                values[_unquoted(value.strip(_SPACES))] = None
    return found


def only_good(cookies: Cookies, name: str, is_good: Callable[[str], bool]) -> str | None:
    """The value of that name that is good; nothing where two are: one may be planted."""
    good = [value for value in cookies.get(name, ()) if is_good(value)]
    return good[0] if len(good) == 1 else None


def _unquoted(value: str) -> str:
    """Some programs put a value between quotes (RFC 6265 §4.1.1); browsers send it as it came."""
    is_quoted = len(value) >= 2 and value[0] == value[-1] == '"'
    return value[1:-1] if is_quoted else value
