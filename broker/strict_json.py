"""Strict JSON (RFC 8259 and RFC 7493): no repeated member, no NaN, no number out of range.

Two parsers that read a repeated member or `1e400` differently could be played off against each
other. So every ambiguous document is refused.
"""

import json
from collections.abc import Callable
from typing import Any


def unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the members of an object. Raises `ValueError` if one is repeated."""
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("a member is repeated")
    return document


def finite_number(digits: str) -> float:
    """Return a number with a fraction or an exponent. Raises `ValueError` if it is infinite."""
    number = float(digits)
    if number in (float("inf"), float("-inf")):
        raise ValueError("a number is too large")
    return number


def parse(
    text: bytes,
    *,
    make_object: Callable[[list[tuple[str, Any]]], Any] = unique_members,
    make_integer: Callable[[str], Any] = int,
    make_number: Callable[[str], Any] = finite_number,
) -> Any:
    """Return the JSON value. Raises `ValueError`, whose text quotes nothing of the document.

    A caller that makes its own objects or numbers checks repeated members and ranges itself.
    """
    try:
        return json.loads(
            text.decode("utf-8"),
            object_pairs_hook=make_object,
            parse_constant=_refuse_constant,
            parse_int=make_integer,
            parse_float=make_number,
        )
    except (ValueError, RecursionError):
        raise ValueError("not strict JSON") from None


def read_object(text: bytes) -> dict[str, Any]:
    """Return the JSON object. Raises `ValueError`, whose text quotes nothing of the document."""
    document = parse(text)
    if not isinstance(document, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004  (the input is wrong, not a call)
    return document


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
