"""Responses of untrusted servers: nothing is raised."""

from datetime import timedelta

import httpx2
import pytest

from broker.outbound.responses import http_date, is_html, json_object, retry_after, says_json


def _response(content: bytes = b"", **headers: str) -> httpx2.Response:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx2.Response(200, content=content, headers=names)


@pytest.mark.parametrize(
    ("content", "document"),
    [
        (b'{"a": 1}', {"a": 1}),
        (b"[]", None),
        (b"", None),
        (b"\xff", None),
        (b"[" * 100_000, None),
        (b'{"a": ', None),
    ],
)
def test_only_a_json_object_is_returned(content: bytes, document: object) -> None:
    assert json_object(_response(content)) == document


@pytest.mark.parametrize(
    ("media_type", "expected"),
    [
        ("application/json", True),
        ("Application/JSON; charset=utf-8", True),
        ("application/problem+json", True),
        ("text/json", False),
        ("text/html", False),
        ("", False),
    ],
)
def test_the_media_type_says_json(media_type: str, expected: bool) -> None:
    assert says_json(_response(Content_Type=media_type)) is expected


@pytest.mark.parametrize(
    ("content", "media_type", "expected"),
    [
        (b"", "text/html; charset=utf-8", True),
        (b"", "application/xhtml+xml", True),
        (b" \n<!DOCTYPE html>", "application/json", True),
        (b"{}", "application/json", False),
        (b"", "", False),
    ],
)
def test_a_page_is_recognised(content: bytes, media_type: str, expected: bool) -> None:
    assert is_html(_response(content, Content_Type=media_type)) is expected


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("0", 0), ("17", 17), (" 17 ", 17), ("3601", 3600), ("9" * 20, 3600)],
)
def test_retry_after_is_bounded_seconds(value: str, seconds: int) -> None:
    assert retry_after(_response(Retry_After=value)) == timedelta(seconds=seconds)


@pytest.mark.parametrize("value", ["", "soon", "-5", "1.5", "+5", "Fri, 99 May 2020 00:00:00 GMT"])
def test_a_malformed_retry_after_is_none(value: str) -> None:
    assert retry_after(_response(Retry_After=value)) is None


def test_retry_after_as_a_date_is_relative_to_the_servers_clock() -> None:
    response = _response(
        Retry_After="Fri, 01 May 2020 00:00:40 GMT", Date="Fri, 01 May 2020 00:00:00 GMT"
    )
    assert retry_after(response) == timedelta(seconds=40)


@pytest.mark.parametrize("text", ["", "yesterday", "Fri, 99 May 2020 00:00:00 GMT", "1"])
def test_a_malformed_date_is_none(text: str) -> None:
    assert http_date(text) is None


def test_a_date_without_a_zone_is_utc() -> None:
    date = http_date("Fri, 01 May 2020 00:00:00 -0000")
    assert date is not None
    assert date.utcoffset() == timedelta(0)
