"""Reads request bodies within a limit, and refuses what is not a JSON object."""

import json
from typing import Any

from starlette.requests import Request

from broker.web.problems import invalid_request

BODY_LIMIT = 64 * 1024
"""Bytes; a body that is longer is refused before it is read whole."""


async def read_json_object(request: Request, *, limit: int = BODY_LIMIT) -> dict[str, Any]:
    """The request's JSON object. Raises `Problem`: 413 when too long, 415 or 400 when not JSON."""
    body = await read_json_bytes(request, limit=limit)
    try:
        document = json.loads(
            body.decode("utf-8"),
            parse_constant=_refuse_constant,
            object_pairs_hook=_object_without_repetition,
        )
        _refuse_half_characters(document)
    except (ValueError, RecursionError) as error:
        raise invalid_request("body", "The body is not valid JSON.") from error
    if not isinstance(document, dict):
        raise invalid_request("body", "The body must be a JSON object.")
    return document


async def read_json_bytes(request: Request, *, limit: int) -> bytes:
    """A body that says it is JSON, unread. Raises `Problem`: 413 when too long, 415 otherwise."""
    media_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if media_type != "application/json":
        raise invalid_request("content-type", "Send application/json.", status=415)
    return await read_within(request, limit)


async def read_within(request: Request, limit: int) -> bytes:
    """The body, whatever it is. Raises `Problem` with 413 before it is read whole."""
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


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON (RFC 8259)")


def _refuse_half_characters(document: object) -> None:
    """Half of a surrogate pair is JSON, but no text: no database and no answer can hold it."""
    json.dumps(document, ensure_ascii=False).encode("utf-8")


def _object_without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Two members of one name leave open which is meant (RFC 8259 §4), so neither is taken."""
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("a member is repeated")
    return document
