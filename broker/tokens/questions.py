"""What a request for a token may say, checked value by value, however it came in."""

from typing import Final

from broker.google.scopes import is_scope_name, parse_scopes
from broker.web.problems import invalid_request

DEFAULT_MIN_TTL: Final = 60
LONGEST_MIN_TTL: Final = 86_400
_ACCOUNT_LIMIT = 320
_SCOPE_LIMIT = 8192


def checked_scopes(text: str | None) -> tuple[str, ...] | None:
    """The scopes in a space-separated `scope`. Raises `Problem`."""
    if text is None:
        return None
    if len(text) > _SCOPE_LIMIT:
        raise invalid_request("scope", f"scope is longer than {_SCOPE_LIMIT} characters.")
    scopes = parse_scopes(text)
    if not all(map(is_scope_name, scopes)):
        raise invalid_request("scope", "scope has a name that no scope may have.")
    if not scopes:
        raise invalid_request("scope", "scope is empty; leave it out to get all there is.")
    return scopes


def checked_account(text: str | None) -> str | None:
    """The `account`. Raises `Problem`."""
    if text is None:
        return None
    if not 0 < len(text) <= _ACCOUNT_LIMIT or not text.isprintable():
        raise invalid_request("account", "account must be a Google `sub` or an email address.")
    return text


def checked_min_ttl(digits: str | None) -> int:
    """The seconds in `min_ttl`, or what counts without one. Raises `Problem`."""
    if digits is None:
        return DEFAULT_MIN_TTL
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= 5):
        raise invalid_request("min_ttl", "min_ttl must be a whole number of seconds.")
    seconds = int(digits)
    if seconds > LONGEST_MIN_TTL:
        raise invalid_request("min_ttl", f"min_ttl is at most {LONGEST_MIN_TTL} seconds.")
    return seconds
