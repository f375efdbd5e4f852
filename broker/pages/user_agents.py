"""Distinguishes users' browsers, programs and previews, by what a request says about itself.

It decides what is shown, and that a preview uses nothing up; never what is allowed.
"""

import re

from starlette.requests import Request

PREFETCH_HEADERS = ("sec-purpose", "purpose", "x-purpose", "x-moz")

LINK_VARY = ", ".join(
    ("Accept-Language", "Accept", "User-Agent", "Sec-Fetch-Mode", *PREFETCH_HEADERS)
)
"""The request headers on which the response to a link depends."""

# Chat programs and search engines that follow links on their own. Many give a URL that describes
# them, which no browser does. Cubot is a brand of telephones.
_ROBOTS = re.compile(
    r"(?<!cu)bot\b|crawler|spider|scrap|preview|unfurl|embedly|facebookexternalhit|^whatsapp/"
    r"|\+https?://",
    re.IGNORECASE,
)


def is_preview(request: Request) -> bool:
    """True if no user has requested this page yet.

    Such are HEAD requests, declared prefetches, images and frames of other pages, and programs that
    follow links on their own.
    """
    headers = request.headers
    if request.method == "HEAD" or headers.get("sec-fetch-dest", "document") != "document":
        return True
    hints = (headers.get(name, "").lower() for name in PREFETCH_HEADERS)
    if any("prefetch" in hint or "preview" in hint for hint in hints):
        return True
    return _ROBOTS.search(headers.get("user-agent", "")) is not None


def is_browser(request: Request) -> bool:
    """True if the client accepts HTML or identifies itself as a browser in any way."""
    headers = request.headers
    return (
        "text/html" in headers.get("accept", "").lower()
        or any(name.startswith("sec-fetch-") for name in headers)
        or headers.get("user-agent", "").startswith("Mozilla/")
    )
