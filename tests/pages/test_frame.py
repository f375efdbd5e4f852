"""The frame of all pages: headers, texts that are filled in, static files."""

import pytest
from starlette.requests import Request

from broker.pages.frame import Frame, MessagePage, StaticFiles, Tone, breaking, filled
from broker.wording.catalogue import PageText
from broker.wording.consent_en import ENGLISH

FRAME = Frame(["https://app.example.com/auth/google/callback"], "broker.consent")
TEXT = PageText("Title", "Lead")


def _request(method: str) -> Request:
    return Request({"type": "http", "method": method, "headers": []})


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 503)])
def test_a_preview_gets_an_empty_response_that_is_not_stored(method: str, status: int) -> None:
    response = FRAME.preview_response(_request(method))
    assert (response.status_code, response.body) == (status, b"")
    assert response.headers["cache-control"] == "no-store"
    assert "sec-purpose" in response.headers["vary"]


@pytest.mark.parametrize(
    ("url", "location"),
    [
        ("/connections", "/connections"),
        ("https://p.example/?a=b&c=%20#d", "https://p.example/?a=b&c=%20#d"),
        ("https://p.example/grüße", "https://p.example/gr%C3%BC%C3%9Fe"),
        ("https://p.example/a\r\nb: c", "https://p.example/a%0D%0Ab:%20c"),
    ],
)
def test_a_redirect_encodes_what_a_url_cannot_contain(url: str, location: str) -> None:
    response = FRAME.redirect(url)
    assert response.status_code == 303
    assert response.headers["location"] == location
    assert "cross-origin-opener-policy" not in response.headers


@pytest.mark.parametrize(("status", "retry_after"), [(503, "30"), (400, None), (429, None)])
def test_a_temporary_failure_says_when_to_retry(status: int, retry_after: str | None) -> None:
    page = FRAME.message(TEXT, MessagePage(status), words=ENGLISH)
    assert page.headers.get("retry-after") == retry_after


@pytest.mark.parametrize(
    ("tone", "is_shown"), [(Tone.TROUBLE, True), (Tone.CALM, False), (Tone.GOOD, False)]
)
def test_a_reference_is_shown_where_there_is_something_to_fix(tone: Tone, is_shown: bool) -> None:
    page = FRAME.message(TEXT, MessagePage(400, tone), words=ENGLISH, request_id="id-1")
    assert (b"<code>id-1</code>" in page.body) is is_shown


def test_what_is_filled_in_is_escaped_and_isolated() -> None:
    shown = filled("{service} & you", service="<b>{0}")
    assert shown == "<bdi>&lt;b&gt;{0}</bdi> &amp; you"


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("ada@example.com", "ada@example.com"),
        ("ada.l@example.com", "ada.<wbr>l<wbr>@example.<wbr>com"),
        ("<i>@example.com", "&lt;i&gt;@example.com"),
    ],
)
def test_a_long_address_may_break_at_dots_and_at_sign(address: str, shown: str) -> None:
    assert breaking(address) == shown


def test_a_static_files_url_changes_with_its_content() -> None:
    files = StaticFiles()
    before = files.url("style.css")
    assert before == StaticFiles().url("style.css")
    assert before != files.url("icon.svg")
