"""Who comes with a link: a person's browser, a program, or something that only looks.

Only what a request says of itself is looked at. It decides what is shown, never what is allowed.
"""

import re
from collections.abc import Mapping
from enum import Enum, auto
from urllib.parse import urlsplit

LOOKING_HEADERS = ("sec-purpose", "purpose", "x-purpose", "x-moz")
VARY = ", ".join(("accept", "user-agent", "sec-fetch-mode", *LOOKING_HEADERS))
"""What the answer to a link depends on."""

_UNFURLERS = re.compile(
    r"bot\b|bot/|crawler|spider|preview|unfurl|facebookexternalhit|facebookcatalog|whatsapp/"
    r"|slack-imgproxy|embedly|vkshare|bitlybot|skypeuripreview|microsoft office|mattermost"
    r"|iframely|google-safety|googleimageproxy|safelinks|urlscan|proofpoint|mimecast|barracuda",
    re.IGNORECASE,
)
"""Chat programs, mail scanners and search engines that follow links on their own."""


class Visitor(Enum):
    """What to answer."""

    PERSON = auto()
    """A browser: it is shown a page."""
    PROGRAM = auto()
    """Something that follows redirects, and asked for no page."""
    LOOKER = auto()
    """Nobody has asked for this yet."""


def visitor_of(method: str, headers: Mapping[str, str]) -> Visitor:
    """Who asks; `headers` by their names in small letters."""
    if is_only_looking(method, headers) or _UNFURLERS.search(headers.get("user-agent", "")):
        return Visitor.LOOKER
    says_browser = (
        "text/html" in headers.get("accept", "").lower()
        or any(name.startswith("sec-fetch-") for name in headers)
        or headers.get("user-agent", "").startswith("Mozilla/")
    )
    return Visitor.PERSON if says_browser else Visitor.PROGRAM


def is_only_looking(method: str, headers: Mapping[str, str]) -> bool:
    """Whether nobody has asked for this yet: opening a link would use up what it is good for."""
    if method == "HEAD":
        return True
    hints = (headers.get(name, "").lower() for name in LOOKING_HEADERS)
    return any("prefetch" in hint or "preview" in hint for hint in hints)


def is_from_elsewhere(headers: Mapping[str, str]) -> bool:
    """Whether the browser says that a page of another origin sent this (Fetch Metadata)."""
    return headers.get("sec-fetch-site", "none").lower() not in ("same-origin", "none")


def is_same_origin(unverified_origin: str, url: str) -> bool:
    """Whether an `Origin` header may be that of a page at `url` (RFC 6454 §4 and §7).

    Under `Referrer-Policy: no-referrer` a browser says `null`, as it does for a sandbox's form.
    """
    return unverified_origin == "null" or _origin(unverified_origin) == _origin(url)


def _origin(url: str) -> tuple[str, str | None, int | None] | None:
    try:
        parts = urlsplit(url)
        default = {"http": 80, "https": 443}.get(parts.scheme)
        return parts.scheme, parts.hostname, parts.port or default
    except ValueError:
        return None
