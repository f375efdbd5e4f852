"""Reads the body of a batch: refused as a whole where its structure is wrong, else item by item.

Members stay pairs and numbers stay digits, as they are on the wire. So an item that was read before
is recognised by comparing it, without reading it again.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar

from broker.tokens.held import TokenRequest
from broker.tokens.questions import checked_account, checked_min_ttl, checked_scopes
from broker.web.paths import checked_user_id
from broker.web.problems import Problem, invalid_request

MOST_ITEMS: Final = 1000

_MEMBERS = frozenset({"user_id", "scope", "account", "min_ttl"})

_Value = TypeVar("_Value", str, bytes)


def items_of(body: bytes) -> Sequence[object]:
    """The items as they stand: objects as tuples of pairs, numbers as bytes. Raises `Problem`."""
    try:
        document = json.loads(
            body.decode("utf-8"),
            object_pairs_hook=tuple,
            parse_int=str.encode,
            parse_float=str.encode,
            parse_constant=_refuse_constant,
        )
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
        return _question(members)
    except Problem as problem:
        return problem


def _question(members: Mapping[str, Any]) -> TokenRequest:
    digits = _member(members, "min_ttl", bytes)
    return TokenRequest(
        user_id=checked_user_id(_member(members, "user_id", str) or ""),
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
