"""Bounds of a request's head, and its framing: where the request ends (request smuggling).

Checks what the HTTP parser accepts although RFC 9112 or a proxy may read it in another way.
"""

from collections.abc import Sequence

from broker.web.problems import Problem, invalid_request

HEAD_LIMIT = 32 * 1024
"""Bytes of request line and headers together; a 2 KiB token and a long user id fit many times."""

HEAD_SECONDS = 10.0
"""For the whole head, from its first byte or from the start of the connection."""

MAX_HEADERS = 100
"""Header lines; browsers behind several proxies send some forty."""

NOT_HTTP = invalid_request("request", "This is not a valid HTTP/1.1 request.")
HEAD_TOO_LONG = invalid_request(
    "headers", f"The request's line and headers exceed {HEAD_LIMIT} bytes.", status=431
)
HEAD_TOO_SLOW = invalid_request(
    "headers", f"The request's line and headers took longer than {HEAD_SECONDS:.0f} s.", status=408
)
_TOO_MANY_HEADERS = invalid_request(
    "headers", f"The request has more than {MAX_HEADERS} headers.", status=431
)
_NOT_ONE_HOST = invalid_request("host", "A request has exactly one Host header.")
_UNKNOWN_CODING = invalid_request(
    "transfer-encoding", "The only transfer coding that is understood is chunked."
)
"""RFC 9112 §6.1 asks for 501. But no input may look like a fault of the server."""


def head_fault(version: str, headers: Sequence[tuple[bytes, bytes]]) -> Problem | None:
    """Return the refusal of a head that another reader may read in another way.

    `version` is the parser's; header names are in lower case.
    """
    if len(headers) > MAX_HEADERS:
        return _TOO_MANY_HEADERS
    if version not in ("1.1", "1.0"):
        # HTTP/2 in plain text, or HTTP/0.9 with a head.
        return NOT_HTTP
    hosts, codings = 0, list[bytes]()
    for name, value in headers:
        if name == b"host":
            hosts += 1
        elif name == b"transfer-encoding":
            codings.append(value)
    if hosts != 1 and (hosts or version == "1.1"):
        return _NOT_ONE_HOST
    if codings:
        return _coding_fault(version, b",".join(codings))
    return None


def _coding_fault(version: str, codings: bytes) -> Problem | None:
    """RFC 9112 §6.1. The parser itself refuses a list that does not end with `chunked`."""
    if version != "1.1":
        return NOT_HTTP
    _, comma, last = codings.lower().rpartition(b",")
    # The parser would pass on a body to which the other codings still apply.
    return _UNKNOWN_CODING if comma and last.strip() == b"chunked" else None
