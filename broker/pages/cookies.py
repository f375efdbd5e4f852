"""Reads the cookies of a request exactly as they were set; believes none of them.

No name is mended: to a browser only the very prefix `__Host-` is one, and what it lets others set
under a name that merely looks so must not pass for it.
"""

from collections.abc import Mapping

from starlette.requests import Request

_SPACES = " \t"
"""All that a browser trims (RFC 6265bis §5.7). Python's `strip` would also trim bytes that are
spaces in Latin-1, and so make a `__Host-` name of one that anybody near may set."""


def cookies_of(request: Request) -> Mapping[str, str]:
    """By name; without those that come twice with two values, of which one is somebody else's."""
    found: dict[str, str] = {}
    disputed: set[str] = set()
    for header in request.headers.getlist("cookie"):
        for pair in header.split(";"):
            name, separator, value = pair.partition("=")
            name, value = name.strip(_SPACES), _unquoted(value.strip(_SPACES))
            if separator and found.setdefault(name, value) != value:
                disputed.add(name)
    return {name: value for name, value in found.items() if name not in disputed}


def _unquoted(value: str) -> str:
    """Some programs put a value between quotes (RFC 6265 §4.1.1); browsers send it as it came."""
    is_quoted = len(value) >= 2 and value[0] == value[-1] == '"'
    return value[1:-1] if is_quoted else value
