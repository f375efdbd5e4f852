"""Forms are read within limits, and count only from the broker's own pages."""

from collections.abc import Sequence

import pytest
from starlette.requests import Request
from starlette.types import Message

from broker.pages.browser_input import FORM_LIMIT, is_from_own_page, origin_of, read_form

OWN = ("https://app.example.com", "http://localhost:8000")


def _form(body: bytes, media_type: str = "application/x-www-form-urlencoded") -> Request:
    parts = [body[:10], body[10:]]

    async def receive() -> Message:
        part = parts.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(parts)}

    headers = [(b"content-type", media_type.encode())]
    return Request({"type": "http", "method": "POST", "headers": headers}, receive)


async def test_fields_are_read() -> None:
    form = await read_form(_form(b"grant=1%2F2&token=a+b&empty="))
    assert form == {"grant": "1/2", "token": "a b", "empty": ""}


@pytest.mark.parametrize(
    "body",
    [
        b"token=1&token=2",
        b"token=%ff",
        "token=é".encode(),
        b"&".join(b"f%d=1" % number for number in range(11)),
        b"token=" + b"x" * FORM_LIMIT,
    ],
)
async def test_a_malformed_or_too_long_form_is_not_read(body: bytes) -> None:
    assert await read_form(_form(body)) is None


async def test_another_media_type_is_not_read() -> None:
    assert await read_form(_form(b"token=1", "text/plain")) is None
    assert await read_form(_form(b"token=1", "application/x-www-form-urlencoded;charset=utf-8"))


@pytest.mark.parametrize(
    ("headers", "is_own"),
    [
        ([], True),
        ([("sec-fetch-site", "same-origin"), ("origin", "null")], True),
        ([("origin", "https://app.example.com")], True),
        ([("origin", "http://localhost:8000")], True),
        ([("sec-fetch-site", "none")], True),
        ([("origin", "https://evil.example")], False),
        ([("origin", "http://app.example.com")], False),
        ([("sec-fetch-site", "cross-site"), ("origin", "null")], False),
        ([("sec-fetch-site", "same-site"), ("origin", "https://other.example.com")], False),
        ([("sec-fetch-site", "same-origin"), ("origin", "https://evil.example")], False),
    ],
)
def test_a_form_of_another_origin_is_recognised(
    headers: Sequence[tuple[str, str]], is_own: bool
) -> None:
    raw = [(name.encode(), value.encode()) for name, value in headers]
    request = Request({"type": "http", "method": "POST", "headers": raw})
    assert is_from_own_page(request, OWN) is is_own


def test_an_origin_is_scheme_host_and_port() -> None:
    assert origin_of("http://localhost:8000/auth/google/callback?a=b") == "http://localhost:8000"
