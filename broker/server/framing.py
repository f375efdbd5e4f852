"""Whether the head of a request leaves open where it ends, or for whom it is (request smuggling).

Looks at what the parser lets pass, and at nothing but version and headers.
"""

from collections.abc import Sequence

from broker.web.problems import Problem, invalid_request

NOT_HTTP = invalid_request("request", "This is not a valid HTTP/1.1 request.")
_NOT_ONE_HOST = invalid_request("host", "A request has exactly one Host header.")
_UNKNOWN_CODING = invalid_request(
    "transfer-encoding", "The only transfer coding that is understood is chunked."
)
"""RFC 9112 §6.1 would have 501. But nothing that anybody sends may look like a fault of ours."""


def framing_fault(version: str, headers: Sequence[tuple[bytes, bytes]]) -> Problem | None:
    """The answer to a head that another reader may read in another way, if it is one.

    `version` is what the parser took for one of HTTP; names are in small letters.
    """
    if version not in ("1.1", "1.0"):
        # HTTP/2 in plain lines, or a head where 0.9 has none.
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
    """RFC 9112 §6.1. A list that does not end with `chunked` is the parser's to refuse."""
    if version != "1.1":
        return NOT_HTTP
    _, comma, last = codings.lower().rpartition(b",")
    # The parser would hand on what the codings before the last have made of the body.
    return _UNKNOWN_CODING if comma and last.strip() == b"chunked" else None
