"""Reads the one form that the pages have, within a limit."""

from starlette.requests import Request

from broker.consent.callbacks import read_query

FORM_LIMIT = 1024
"""Bytes."""

_MEDIA_TYPE = "application/x-www-form-urlencoded"


async def read_form(request: Request) -> dict[str, str] | None:
    """The form's fields, each of which comes once; nothing where it is no such form."""
    media_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if media_type != _MEDIA_TYPE:
        return None
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > FORM_LIMIT:
            return None
    return read_query(bytes(body))
