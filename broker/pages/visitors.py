"""Tells a person's browser from what only looks: opening a link uses up what it is good for."""

import re

from starlette.requests import Request

PREFETCH_HEADERS = ("sec-purpose", "purpose", "x-purpose", "x-moz")

# Chat programs and search engines, that follow links on their own; many give an address where they
# say what they are for, and no browser does. Cubot is a maker of telephones.
_ROBOTS = re.compile(
    r"(?<!cu)bot\b|crawler|spider|scrap|preview|unfurl|embedly|facebookexternalhit|^whatsapp/"
    r"|\+https?://",
    re.IGNORECASE,
)


def is_only_looking(request: Request) -> bool:
    """Whether no person has asked for this page yet.

    HEAD, a prefetch that says so, a picture or a frame of another page, a program that follows
    links on its own.
    """
    headers = request.headers
    if request.method == "HEAD" or headers.get("sec-fetch-dest", "document") != "document":
        return True
    hints = (headers.get(name, "").lower() for name in PREFETCH_HEADERS)
    if any("prefetch" in hint or "preview" in hint for hint in hints):
        return True
    return _ROBOTS.search(headers.get("user-agent", "")) is not None
