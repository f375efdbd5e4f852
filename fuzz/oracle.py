"""The oracle: checks each response and its side effects, in the same way for every route.

The status is below 500 and the body has the form of its listener. No cache may store the response,
it contains no secret, the log shows no defect, and a refusal has changed nothing.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fuzz.files import PLANTED
from fuzz.requests import Made
from fuzz.target import Find, must

_PAGE_HEADERS = (
    "content-security-policy",
    "referrer-policy",
    "x-content-type-options",
    "x-frame-options",
)


@dataclass(frozen=True)
class Answer:
    """An application's response."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class LogWatch(logging.Handler):
    """Collects log records that no request may cause."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.finds: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Errors, tracebacks, and secrets."""
        whole = f"{record.getMessage()} {vars(record)}"
        if record.levelno >= logging.ERROR or record.exc_info or PLANTED in whole:
            self.finds.append(self.format(record))

    def check(self) -> None:
        """Raise `Find` if there are any."""
        found, self.finds = self.finds, []
        must(not found, "in the log: " + "\n".join(found))


def judge(listener: str, made: Made, answer: Answer) -> None:
    """Raise `Find` for an invalid response."""
    headers = answer.headers
    if answer.status >= 500:
        must(_is_refused_prefetch(listener, answer), f"answered {answer.status}: {answer.body!r}")
    must(answer.status >= 200, f"answered {answer.status}")
    shown = answer.body + repr(sorted(headers.items())).encode()
    must(PLANTED.encode() not in shown, f"a secret is shown: {answer}")
    must(headers.get("x-request-id"), "no request id")
    is_static = made.path.startswith(b"/auth/google/static/") and answer.status in (200, 304)
    must(is_static or "no-store" in headers.get("cache-control", ""), f"may be cached: {answer}")
    must(answer.status != 405 or headers.get("allow"), "405 without Allow")
    if made.method == "HEAD":
        return
    if listener == "public":
        _judge_public(answer)
    elif listener == "internal" or answer.status >= 400:
        _judge_internal(made, answer)


def _is_refused_prefetch(listener: str, answer: Answer) -> bool:
    """The 503 that keeps a browser from showing a prefetched page later has no body."""
    vary = answer.headers.get("vary", "").lower()
    return listener == "public" and answer.status == 503 and "purpose" in vary and not answer.body


def _judge_public(answer: Answer) -> None:
    media_type = answer.headers.get("content-type", "")
    if media_type.startswith("text/html"):
        for name in _PAGE_HEADERS:
            must(name in answer.headers, f"a page without {name}")
        must(b"Traceback" not in answer.body, "a traceback")
        must(b"<script" not in answer.body.lower(), "a script")
    elif answer.status == 303:
        where = answer.headers["location"]
        must(where.startswith(_WAYS), f"redirected to {where}")
    elif media_type == "application/json":
        must(set(_object(answer)) == {"err", "description"}, "no RFC 8935 error")
    else:
        must(answer.status in (200, 202, 304, 503), f"neither page nor error: {answer}")


_WAYS = ("/connections", "http://127.0.0.1:", "https://app.example.com/settings")


def _judge_internal(made: Made, answer: Answer) -> None:
    if answer.status == 204:
        must(not answer.body, "204 with a body")
        return
    document = _object(answer)
    if answer.status < 400:
        return
    if made.path == b"/oauth/token" and "error" in document:
        description = document["error_description"]
        must(all(" " <= c <= "~" and c not in '"\\' for c in description), "RFC 6749 §5.2")
        return
    media_type = answer.headers.get("content-type")
    must(media_type == "application/problem+json", f"no problem: {answer}")
    must(document["status"] == answer.status, "the problem has another status")
    must(
        isinstance(document["code"], str) and document["detail"],
        "a problem without title or detail",
    )


def _object(answer: Answer) -> dict[str, Any]:
    try:
        document = json.loads(answer.body)
    except ValueError:
        raise Find(f"not JSON: {answer}") from None
    must(isinstance(document, dict), f"no object: {answer}")
    return dict(document)
