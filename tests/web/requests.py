"""ASGI requests made by hand, for what needs no socket."""

from collections.abc import Iterable
from typing import Any

from starlette.requests import Request
from starlette.types import Message


def request(
    *chunks: bytes,
    headers: Iterable[tuple[str, str]] = (("Content-Type", "application/json"),),
    query: bytes = b"",
    path_params: dict[str, Any] | None = None,
) -> Request:
    """A request whose body comes in these chunks; reading further than that fails the test."""
    waiting = list(chunks) or [b""]

    async def receive() -> Message:
        body = waiting.pop(0)
        return {"type": "http.request", "body": body, "more_body": bool(waiting)}

    raw = [(name.lower().encode(), value.encode()) for name, value in headers]
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/",
        "headers": raw,
        "query_string": query,
        "path_params": path_params or {},
    }
    return Request(scope, receive)
