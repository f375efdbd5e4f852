"""Reading an answer's body without trusting it: whatever it holds, nothing is raised or quoted."""

import json
from typing import Any

import httpx2


def json_object(response: httpx2.Response) -> dict[str, Any] | None:
    """The body's JSON object, or None for anything else.

    No exception leaves here, because a JSON error keeps the whole document, tokens included.
    """
    try:
        document = json.loads(response.content)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def says_json(response: httpx2.Response) -> bool:
    """Whether the answer claims to be JSON, as RFC 6749 §5 demands."""
    media_type = _media_type(response)
    return media_type == "application/json" or media_type.endswith("+json")


def is_html(response: httpx2.Response) -> bool:
    """Whether this is a page for people: a front end or a portal speaks, not the service."""
    if _media_type(response) in ("text/html", "application/xhtml+xml"):
        return True
    return response.content.lstrip()[:1] == b"<"


def _media_type(response: httpx2.Response) -> str:
    return response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
