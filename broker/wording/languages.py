"""Which language a page is in: the one of those there are that its reader likes best."""

import re
from collections.abc import Sequence

_LONGEST = 512
"""Characters of the header that are looked at; browsers send some fifty."""

_RANGE = re.compile(
    r"\s*(?P<tag>[A-Za-z]{1,8}(?:-[A-Za-z0-9]{1,8})*|\*)\s*"
    r"(?:;\s*[qQ]=(?P<weight>0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)\s*)?"
)


def preferred(accept_language: str | None, offered: Sequence[str]) -> str:
    """The offered language that an `Accept-Language` asks for first (RFC 9110 §12.5.4).

    A region counts as its language (RFC 4647 §3.4). The first that is offered stands for all that
    is unreadable, unknown or indifferent.
    """
    ranges = [
        match
        for part in (accept_language or "")[:_LONGEST].split(",")
        if (match := _RANGE.fullmatch(part)) is not None
    ]
    weights = [float(match["weight"] or 1) for match in ranges]
    # Sorting keeps the order of the header among those of one weight.
    for weight, match in sorted(zip(weights, ranges, strict=True), key=lambda pair: -pair[0]):
        language = match["tag"].partition("-")[0].lower()
        if weight > 0 and language in offered:
            return language
        if weight > 0 and language == "*":
            return offered[0]
    return offered[0]
