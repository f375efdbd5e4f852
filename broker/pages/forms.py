"""Reads what a form of ours sends, and tells it from one of somebody else's."""

from collections.abc import Collection, Mapping
from urllib.parse import parse_qsl, urlsplit

from starlette.requests import Request

FORM_LIMIT = 4096
"""Bytes; a form of ours has some three hundred."""

_FIELDS_LIMIT = 10
_MEDIA_TYPE = "application/x-www-form-urlencoded"


def is_from_own_page(request: Request, own_origins: Collection[str]) -> bool:
    """Whether nothing says that a page of another origin sent this; old browsers say nothing.

    Under `Referrer-Policy: no-referrer` browsers send `Origin: null` with our own forms, too (Fetch
    §3.1), so that the form's token is what counts, and this a second lock.
    """
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return False
    return request.headers.get("origin", "null") in ("null", *own_origins)


async def read_form(request: Request) -> Mapping[str, str] | None:
    """The fields, each once; nothing where it is no form, is too long, or names one twice."""
    media_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
    body = await _read_within(request, FORM_LIMIT) if media_type == _MEDIA_TYPE else None
    return None if body is None else fields_once(body, at_most=_FIELDS_LIMIT)


def fields_once(encoded: bytes, *, at_most: int) -> dict[str, str] | None:
    """The fields of a form or a query; nothing where one comes twice or is unreadable."""
    try:
        pairs = parse_qsl(
            encoded.decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=at_most,
        )
    except ValueError:
        return None
    fields = dict(pairs)
    return fields if len(fields) == len(pairs) else None


async def _read_within(request: Request, limit: int) -> bytes | None:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            return None
    return bytes(body)


def origin_of(url: str) -> str:
    """Scheme, host and port."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
