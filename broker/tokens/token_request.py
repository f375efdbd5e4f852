"""A request for a token: its value, the checks of its parameters, and the body of a batch.

In a batch, wrong structure refuses the whole batch, and a wrong value one item. Members stay pairs
and numbers stay digits, as they were sent. Most items of a batch differ only in their user, so the
rest of an item is read once.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeVar

from broker import strict_json
from broker.scopes import is_scope_name, parse_scopes
from broker.web.parameters import checked_user_id
from broker.web.problems import Problem, invalid_request

DEFAULT_MIN_TTL: Final = 60
LONGEST_MIN_TTL: Final = 86_400
_ACCOUNT_LIMIT = 320
_SCOPE_LIMIT = 8192


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """A request for a token; valid in form, not yet checked against any policy."""

    user_id: str
    scopes: tuple[str, ...] | None
    """None requests all that grant and caller share."""
    account: str | None
    """A Google `sub` or email; None means the only or the default grant."""
    min_ttl: int
    """Seconds that the token must still live."""


def checked_scopes(text: str | None) -> tuple[str, ...] | None:
    """Return the scopes of a space-separated `scope`. Raises `Problem`."""
    if text is None:
        return None
    if len(text) > _SCOPE_LIMIT:
        raise invalid_request("scope", f"scope is longer than {_SCOPE_LIMIT} characters.")
    scopes = parse_scopes(text)
    if not all(map(is_scope_name, scopes)):
        raise invalid_request("scope", "scope contains an invalid scope name.")
    if not scopes:
        raise invalid_request("scope", "scope is empty; omit it to request all granted scopes.")
    return scopes


def checked_account(text: str | None) -> str | None:
    """Return the `account`. Raises `Problem`."""
    if text is None:
        return None
    if not 0 < len(text) <= _ACCOUNT_LIMIT or not text.isprintable():
        raise invalid_request("account", "account must be a Google `sub` or an email address.")
    return text


def checked_min_ttl(digits: str | None) -> int:
    """Return the seconds of `min_ttl`, or the default. Raises `Problem`."""
    if digits is None:
        return DEFAULT_MIN_TTL
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= 5):
        raise invalid_request("min_ttl", "min_ttl must be a whole number of seconds.")
    seconds = int(digits)
    if seconds > LONGEST_MIN_TTL:
        raise invalid_request("min_ttl", f"min_ttl is at most {LONGEST_MIN_TTL} seconds.")
    return seconds


# ---- batches

MOST_ITEMS: Final = 1000

_MEMBERS = frozenset({"user_id", "scope", "account", "min_ttl"})

_MOST_OBJECTS = MOST_ITEMS + 1
_MOST_VALUES = MOST_ITEMS * len(_MEMBERS)
"""Bounds of what is parsed before the body is refused, because parsing blocks the event loop."""

_MOST_COMMAS = 8 * _MOST_VALUES
"""Includes commas within strings. Lists and strings cannot be counted during parsing, and a
megabyte of `[],` takes 0.1 s."""

_Value = TypeVar("_Value", str, bytes)
_Made = TypeVar("_Made")


class _TooMuchError(Exception):
    """The body has more objects or values than any valid batch."""


def read_items(body: bytes) -> Sequence[object]:
    """Return the items: objects as tuples of pairs, numbers as bytes. Raises `Problem`."""
    commas = body.count(b",")
    if commas > _MOST_COMMAS:
        raise _too_much()
    make: Callable[[Any], object] = tuple
    digits: Callable[[str], bytes] = str.encode
    if body.count(b"{") > _MOST_OBJECTS or commas > _MOST_VALUES:
        # They may be within strings; counting during parsing doubles its time.
        make, digits = _at_most(_MOST_OBJECTS, make), _at_most(_MOST_VALUES, digits)
    try:
        document = strict_json.parse(
            body, make_object=make, make_integer=digits, make_number=digits
        )
    except _TooMuchError:
        raise _too_much() from None
    except ValueError as error:
        raise invalid_request("body", "The body is not valid JSON.") from error
    if not isinstance(document, tuple):
        raise invalid_request("body", "The body must be a JSON object.")
    if [name for name, _ in document] != ["requests"]:
        raise invalid_request("body", "The body must have the member requests, once, and no other.")
    items: object = document[0][1]
    if not isinstance(items, list):
        raise invalid_request("requests", "requests must be a list.")
    if not 0 < len(items) <= MOST_ITEMS:
        raise invalid_request("requests", f"requests must have 1 to {MOST_ITEMS} items.")
    return items


def _too_much() -> Problem:
    return invalid_request("requests", f"The body is larger than {MOST_ITEMS} items can be.")


def _at_most(count: int, make: Callable[[Any], _Made]) -> Callable[[Any], _Made]:
    """Return a function that does the same `count` times, and then raises `_TooMuchError`."""
    left = count

    def counted(given: Any) -> _Made:
        nonlocal left
        if not left:
            raise _TooMuchError
        left -= 1
        return make(given)

    return counted


def read_item(item: object, place: int) -> TokenRequest | Problem:
    """Return the request of an item, or what is wrong with one of its values.

    Raises `Problem` if it is no object, or has unknown or repeated members.
    """
    if not isinstance(item, tuple):
        raise invalid_request(f"requests[{place}]", "Each of requests must be an object.")
    members = dict(item)
    if len(members) != len(item) or not members.keys() <= _MEMBERS:
        known = ", ".join(sorted(_MEMBERS))
        raise invalid_request(
            f"requests[{place}]", f"A member is unknown or repeated; known here: {known}."
        )
    try:
        user_id = checked_user_id(_member(members, "user_id", str) or "")
        return TokenRequest(user_id, *_query(members))
    except Problem as problem:
        return problem


class TokenQuery(NamedTuple):
    """A token request without its user."""

    scopes: tuple[str, ...] | None
    account: str | None
    min_ttl: int


class ItemSplitter:
    """Splits items into user and query, and reads equal queries once."""

    def __init__(self) -> None:
        self._queries: dict[object, TokenQuery | None] = {(): _query({})}

    def split_all(self, items: Iterable[Any]) -> Iterator[tuple[str, TokenQuery | None]]:
        """Yield what `split` returns for each item; `("", None)` where it returns None."""
        queries = self._queries
        for item in items:
            if item.__class__ is tuple and item and item[0][0] == "user_id":
                query = queries.get(item[1:])
                if query is not None:
                    yield item[0][1], query
                    continue
            yield self.split(item) or ("", None)

    def split(self, item: Any) -> tuple[str, TokenQuery] | None:
        """Return user and query of an item; None if `read_item` must read it.

        The user id is unchecked: it may be anything, and serves only as a key of the cache. Raises
        `TypeError` for a value without a hash, which no valid request has.
        """
        if item.__class__ is not tuple or not item:
            return None
        (name, user_id), rest = item[0], item[1:]
        if name != "user_id":
            # Members sorted by name have it last.
            (name, user_id), rest = item[-1], item[:-1]
            if name != "user_id":
                return None
        query = self._queries.get(rest)
        if query is None:
            query = self._queries[rest] = _read_rest(rest)
        return (user_id, query) if query is not None else None


def _read_rest(rest: Sequence[tuple[str, Any]]) -> TokenQuery | None:
    members = dict(rest)
    if len(members) != len(rest) or not members.keys() <= _MEMBERS - {"user_id"}:
        return None
    try:
        return _query(members)
    except Problem:
        return None


def _query(members: Mapping[str, Any]) -> TokenQuery:
    digits = _member(members, "min_ttl", bytes)
    return TokenQuery(
        scopes=checked_scopes(_member(members, "scope", str)),
        account=checked_account(_member(members, "account", str)),
        min_ttl=checked_min_ttl(digits.decode() if digits is not None else None),
    )


def _member(members: Mapping[str, Any], name: str, kind: type[_Value]) -> _Value | None:
    if name not in members:
        return None
    value = members[name]
    if not isinstance(value, kind):
        raise invalid_request(name, f"{name} must be a {_KIND_NAMES[kind]}.")
    return value


_KIND_NAMES: Mapping[type, str] = {str: "string", bytes: "number"}
