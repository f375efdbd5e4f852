"""Strict JSON: what leaves a choice to the parser is refused."""

import pytest

from broker.strict_json import parse, read_object


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b'{"a": [1, 2.5, "b", true, null]}', {"a": [1, 2.5, "b", True, None]}),
        (b" 7 ", 7),
        (b'"\\u00e9"', "\u00e9"),
        (b"1e3", 1000.0),
    ],
)
def test_json_is_parsed(text: bytes, value: object) -> None:
    assert parse(text) == value


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"\xff",
        b"\xef\xbb\xbf{}",
        b'{"a": 1, "a": 1}',
        b'{"a": {"b": 1, "b": 2}}',
        b"NaN",
        b"[-Infinity]",
        b"1e400",
        b"-1e400",
        b"9" * 5000,
        b"[" * 100_000,
        b"{} {}",
    ],
)
def test_anything_else_is_refused_without_a_quote(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"^not strict JSON$") as caught:
        parse(text)
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("text", [b"[]", b"null", b'"a"', b"1"])
def test_only_an_object_is_an_object(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"^not a JSON object$"):
        read_object(text)


def test_objects_and_numbers_can_be_kept_as_written() -> None:
    document = parse(
        b'{"a": 1, "a": 2.50}', make_object=tuple, make_integer=str.encode, make_number=str.encode
    )
    assert document == (("a", b"1"), ("a", b"2.50"))


def test_an_exception_of_the_callers_own_passes_through() -> None:
    def refuse(_pairs: object) -> None:
        raise KeyError("too many")

    with pytest.raises(KeyError):
        parse(b"{}", make_object=refuse)
