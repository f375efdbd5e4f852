"""Reads request bodies within a limit, and refuses a body that is not a JSON object."""

import json
from typing import Any

from starlette.requests import Request

from broker import strict_json
from broker.web.problems import invalid_request

BODY_LIMIT = 64 * 1024
"""Bytes; a longer body is refused before all of it is read."""


async def read_json_object(request: Request, *, limit: int = BODY_LIMIT) -> dict[str, Any]:
    """Return the JSON object. Raises `Problem`: 413 if too long, 415 or 400 if it is not JSON."""
    body = await read_json_bytes(request, limit=limit)
    try:
        document = strict_json.parse(body)
        _refuse_lone_surrogates(document)
    except (ValueError, RecursionError) as error:
        raise invalid_request("body", "The body is not valid JSON.") from error
    if not isinstance(document, dict):
        raise invalid_request("body", "The body must be a JSON object.")
    return document


async def read_json_bytes(request: Request, *, limit: int) -> bytes:
    """Return a body of type JSON, unparsed. Raises `Problem`: 413 if too long, 415 otherwise."""
    media_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if media_type != "application/json":
        raise invalid_request("content-type", "Send application/json.", status=415)
    return await read_within(request, limit)


async def read_within(request: Request, limit: int) -> bytes:
    """Return the body. Raises `Problem` 413 as soon as it exceeds `limit` bytes."""
    too_long = invalid_request("body", f"The body is longer than {limit} bytes.", status=413)
    declared = request.headers.get("content-length", "0")
    if not declared.isdecimal() or int(declared[:12]) > limit:
        raise too_long
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise too_long
    return bytes(body)


def _refuse_lone_surrogates(document: object) -> None:
    """JSON allows a lone surrogate as an escape, but neither the database nor a response does."""
    json.dumps(document, ensure_ascii=False).encode("utf-8")
