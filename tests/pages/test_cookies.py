"""Cookies: read as they stand, so that no name passes for another."""

import pytest
from starlette.requests import Request

from broker.pages.cookies import cookies_of


def _request(*headers: bytes) -> Request:
    raw = [(b"cookie", header) for header in headers]
    return Request({"type": "http", "method": "GET", "headers": raw})


@pytest.mark.parametrize(
    "headers",
    [
        [b"a=1; b=2"],
        [b"a=1;b=2"],
        [b" a=1 ;\tb=2\t;"],
        [b"a=1", b"b=2"],
        [b"a=1; other=x; b=2; a=1"],
        [b'$Version="1"; a="1";$Path="/"; b="2";$Path="/x"'],
    ],
)
def test_cookies_are_read(headers: list[bytes]) -> None:
    found = cookies_of(_request(*headers))
    assert (found["a"], found["b"]) == ("1", "2")


def test_without_cookies_there_are_none() -> None:
    assert cookies_of(_request()) == {}
    assert cookies_of(_request(b"", b";;", b"a")) == {}


@pytest.mark.parametrize(
    "name",
    [
        *(bytes([byte]) + b"__Host-a" for byte in b"\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0"),
        b"__Host-a\xa0",
        "\u00a0__Host-a".encode(),
        "\u2000__Host-a".encode(),
        b'"__Host-a"',
        b"__host-a",
        b"",
    ],
)
def test_a_name_that_only_looks_like_another_is_not_that(name: bytes) -> None:
    assert "__Host-a" not in cookies_of(_request(name + b"=1"))


@pytest.mark.parametrize("headers", [[b"a=1; a=2"], [b"a=1", b"a=2"], [b"a=1; a=2; a=1"]])
def test_a_cookie_that_comes_with_two_values_has_none(headers: list[bytes]) -> None:
    assert "a" not in cookies_of(_request(*headers))


def test_a_value_is_taken_as_it_stands() -> None:
    found = cookies_of(_request(b'a="1\\0612"; b=x=y; c="; d='))
    assert found == {"a": "1\\0612", "b": "x=y", "c": '"', "d": ""}


def test_a_cookie_full_of_escapes_is_read_at_once() -> None:
    """A value that quotes every character took Python's own reader the square of its length."""
    value = b'"' + b"\\\\" * 16_000 + b'"'
    assert len(cookies_of(_request(b"a=" + value))["a"]) == 32_000
