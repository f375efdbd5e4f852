"""Reads the body of a batch: refused as a whole where its structure is wrong, else item by item.

Members stay pairs and numbers stay digits, as they are on the wire. What the items of a batch say
beside their user is mostly the same, so it is read once.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeVar

from broker.tokens.cache.token_cache import TokenRequest
from broker.tokens.questions import checked_account, checked_min_ttl, checked_scopes
from broker.web.paths import checked_user_id
from broker.web.problems import Problem, invalid_request

MOST_ITEMS: Final = 1000

_MEMBERS = frozenset({"user_id", "scope", "account", "min_ttl"})

_MOST_OBJECTS = MOST_ITEMS + 1
_MOST_VALUES = MOST_ITEMS * len(_MEMBERS)
"""What is read before it is refused keeps everybody else waiting."""

_MOST_COMMAS = 8 * _MOST_VALUES
"""Within strings, too. Lists and texts can't be counted while they are read, and a megabyte of
`[],` takes a tenth of a second."""

_Value = TypeVar("_Value", str, bytes)
_Made = TypeVar("_Made")


class _TooMuchError(Exception):
    """There is more in a body than in any that could be answered."""


def items_of(body: bytes) -> Sequence[object]:
    """The items as they stand: objects as tuples of pairs, numbers as bytes. Raises `Problem`."""
    commas = body.count(b",")
    if commas > _MOST_COMMAS:
        raise _too_much()
    make: Callable[[Any], object] = tuple
    digits: Callable[[str], bytes] = str.encode
    if body.count(b"{") > _MOST_OBJECTS or commas > _MOST_VALUES:
        # Perhaps within strings; counted only here, since it takes as long as the rest.
        make, digits = _at_most(_MOST_OBJECTS, make), _at_most(_MOST_VALUES, digits)
    try:
        document = json.loads(
            body.decode("utf-8"),
            object_pairs_hook=make,
            parse_int=digits,
            parse_float=digits,
            parse_constant=_refuse_constant,
        )
    except _TooMuchError:
        raise _too_much() from None
    except (ValueError, RecursionError) as error:
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
    return invalid_request("requests", f"This is more than {MOST_ITEMS} items hold.")


def _at_most(count: int, make: Callable[[Any], _Made]) -> Callable[[Any], _Made]:
    """The same, for so many. What is made raises `_TooMuchError` after that."""
    left = count

    def counted(given: Any) -> _Made:
        nonlocal left
        if not left:
            raise _TooMuchError
        left -= 1
        return make(given)

    return counted


def read_item(item: object, place: int) -> TokenRequest | Problem:
    """The question that an item asks, or what is wrong with one of its values.

    Raises `Problem` where it is no object, or one with members that are not known or come twice.
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
        return TokenRequest(user_id, *_question(members))
    except Problem as problem:
        return problem


class Question(NamedTuple):
    """What is asked for a user, whoever that is."""

    scopes: tuple[str, ...] | None
    account: str | None
    min_ttl: int


class Questions:
    """Tells the user of an item from what is asked, without reading again what it has read."""

    def __init__(self) -> None:
        self._read: dict[object, Question | None] = {(): _question({})}

    def split_all(self, items: Iterable[Any]) -> Iterator[tuple[str, Question | None]]:
        """As `split` does, for items one after the other; with no question where it has nothing."""
        read = self._read
        for item in items:
            if item.__class__ is tuple and item and item[0][0] == "user_id":
                question = read.get(item[1:])
                if question is not None:
                    yield item[0][1], question
                    continue
            yield self.split(item) or ("", None)

    def split(self, item: Any) -> tuple[str, Question] | None:
        """Whom and what an item asks for, or nothing if it has to be read with care.

        The user id is not checked: it may be anything, and is only good for looking it up.
        Raises `TypeError` for what has no hash, which nobody was ever answered.
        """
        if item.__class__ is not tuple or not item:
            return None
        (name, user_id), rest = item[0], item[1:]
        if name != "user_id":
            # Members may be sorted by name, which puts it last.
            (name, user_id), rest = item[-1], item[:-1]
            if name != "user_id":
                return None
        question = self._read.get(rest)
        if question is None:
            question = self._read[rest] = _read_rest(rest)
        return (user_id, question) if question is not None else None


def _read_rest(rest: Sequence[tuple[str, Any]]) -> Question | None:
    members = dict(rest)
    if len(members) != len(rest) or not members.keys() <= _MEMBERS - {"user_id"}:
        return None
    try:
        return _question(members)
    except Problem:
        return None


def _question(members: Mapping[str, Any]) -> Question:
    digits = _member(members, "min_ttl", bytes)
    return Question(
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


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON (RFC 8259)")
