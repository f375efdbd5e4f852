"""Cookies are read exactly as sent, so that no name passes for another."""

from time import thread_time

import pytest
from starlette.requests import Request

from broker.pages.browser_input import only_valid, read_cookies


def _request(*headers: bytes) -> Request:
    raw = [(b"cookie", header) for header in headers]
    return Request({"type": "http", "method": "GET", "headers": raw})


def _read(*headers: bytes) -> dict[str, list[str]]:
    return {name: list(values) for name, values in read_cookies(_request(*headers)).items()}


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
    found = _read(*headers)
    assert (found["a"], found["b"]) == (["1"], ["2"])


def test_without_cookies_there_are_none() -> None:
    assert _read() == {}
    assert _read(b"", b";;", b"a") == {}


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
def test_a_similar_name_is_not_the_same(name: bytes) -> None:
    assert "__Host-a" not in _read(name + b"=1")


@pytest.mark.parametrize("headers", [[b"a=1; a=2"], [b"a=1", b"a=2"], [b"a=1; a=2; a=1"]])
def test_all_values_of_a_name_are_read(headers: list[bytes]) -> None:
    assert _read(*headers)["a"] == ["1", "2"]


@pytest.mark.parametrize(("name", "value"), [("a", "good1"), ("b", None), ("c", None), ("d", None)])
def test_of_several_values_exactly_one_may_be_valid(name: str, value: str | None) -> None:
    cookies = read_cookies(_request(b"a=bad; a=good1; a=good1; b=good1; b=good2; c=bad"))
    assert only_valid(cookies, name, lambda each: each.startswith("good")) == value


def test_a_value_is_read_as_sent() -> None:
    found = _read(b'a="1\\0612"; b=x=y; c="; d=')
    assert found == {"a": ["1\\0612"], "b": ["x=y"], "c": ['"'], "d": [""]}


@pytest.mark.parametrize(
    "header",
    [
        b'a="' + b"\\\\" * 16_000 + b'"',
        b";".join(b"a=%d" % number for number in range(4_000)),
        b";" * 32_000,
        b"=;" * 16_000,
    ],
)
def test_the_longest_headers_are_read_quickly(header: bytes) -> None:
    """Python's own parser takes quadratic time for a value that quotes every character."""
    began = thread_time()
    read_cookies(_request(header))
    assert thread_time() - began < 0.5
