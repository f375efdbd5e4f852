"""Reads JSON that others wrote, as RFC 8259 and 7493 have it and no wider.

Two readers that take a doubled member or `1e400` differently could be played off against each
other; so what leaves a choice is refused.
"""

import json
from typing import Any


def read_object(text: bytes) -> dict[str, Any]:
    """The JSON object that the bytes are. Raises `ValueError`, which quotes nothing."""
    try:
        document = json.loads(
            text.decode("utf-8"),
            object_pairs_hook=_once_each,
            parse_constant=_refuse_constant,
            parse_float=_finite,
        )
    except (ValueError, RecursionError):
        raise ValueError("not strict JSON") from None
    if not isinstance(document, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004  (of what was sent, not of a call)
    return document


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("a member is repeated")
    return document


def _finite(digits: str) -> float:
    number = float(digits)
    if number in (float("inf"), float("-inf")):
        raise ValueError("a number is too large")
    return number


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
