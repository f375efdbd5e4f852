"""Tells a person's browser from what only looks: opening a link uses up what it is good for."""

from starlette.requests import Request

PREFETCH_HEADERS = ("sec-purpose", "purpose", "x-purpose", "x-moz")


def is_only_looking(request: Request) -> bool:
    """Whether nobody has asked for this yet: HEAD, or a prefetch that says so."""
    if request.method == "HEAD":
        return True
    hints = (request.headers.get(name, "").lower() for name in PREFETCH_HEADERS)
    return any("prefetch" in hint or "preview" in hint for hint in hints)
