"""Values in PostgreSQL's COPY text format, without a database."""

from collections.abc import Sequence

import pytest

from broker.database.copy_text import array_field, text_field


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, rb"\N"),
        ("", b""),
        ("plain", b"plain"),
        ("ü", "ü".encode()),
        ("a\\b", rb"a\\b"),
        ("a\tb\nc\rd", rb"a\tb\nc\rd"),
        ("a\0b", rb"a\\0b"),
        ("a\ud800b", b"a?b"),
    ],
)
def test_a_text_is_escaped(value: str | None, expected: bytes) -> None:
    assert text_field(value) == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], rb"\N"),
        (["a"], b'{"a"}'),
        (["a", "b c"], b'{"a","b c"}'),
        (['a"b'], rb'{"a\\"b"}'),
        (["a\\b"], rb'{"a\\\\b"}'),
        (["a\0"], rb'{"a\\\\0"}'),
    ],
)
def test_an_array_of_texts_is_quoted_and_escaped(values: Sequence[str], expected: bytes) -> None:
    assert array_field(values) == expected
