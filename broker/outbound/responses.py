"""Reads responses of untrusted servers. Nothing here raises, and nothing quotes a response."""

import json
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2

LONGEST_RETRY_AFTER = timedelta(hours=1)
"""A longer `Retry-After` is cut, so that one wrong value does not silence the broker for a day."""


def json_object(response: httpx2.Response) -> dict[str, Any] | None:
    """Return the JSON object in the body, or None for any other body.

    Never raises: a JSON error would keep the whole document, tokens included.
    """
    try:
        document = json.loads(response.content)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def says_json(response: httpx2.Response) -> bool:
    """True if the media type is JSON, as RFC 6749 §5 demands."""
    media_type = _media_type(response)
    return media_type == "application/json" or media_type.endswith("+json")


def is_html(response: httpx2.Response) -> bool:
    """True for a page for people: a gateway or a captive portal responds, not the service."""
    if _media_type(response) in ("text/html", "application/xhtml+xml"):
        return True
    return response.content.lstrip()[:1] == b"<"


def retry_after(response: httpx2.Response) -> timedelta | None:
    """Return `Retry-After`, seconds or a date (RFC 9110 §10.2.3), between zero and one hour.

    None if the header is absent or malformed.
    """
    text = response.headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        pause = timedelta(seconds=int(text[:9]))
    else:
        until = http_date(text)
        if until is None:
            return None
        # The date was made with the server's own clock.
        pause = until - (http_date(response.headers.get("Date", "")) or datetime.now(UTC))
    return min(max(pause, timedelta(0)), LONGEST_RETRY_AFTER)


def http_date(text: str) -> datetime | None:
    """Return the time of a date header (RFC 9110 §5.6.7), or None if it is malformed."""
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def _media_type(response: httpx2.Response) -> str:
    return response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
