"""The parameters of a token request and the body of a batch, as tables."""

import pytest

from broker.tokens.token_request import (
    ItemSplitter,
    TokenRequest,
    checked_account,
    checked_min_ttl,
    checked_scopes,
    read_item,
    read_items,
)
from broker.web.problems import Problem


@pytest.mark.parametrize(
    ("text", "scopes"),
    [
        (None, None),
        ("a", ("a",)),
        ("a b", ("a", "b")),
        (" b  a b ", ("b", "a")),
        ("x" * 512, ("x" * 512,)),
    ],
)
def test_scopes_are_separated_by_spaces_and_kept_in_order(
    text: str | None, scopes: tuple[str, ...] | None
) -> None:
    assert checked_scopes(text) == scopes


@pytest.mark.parametrize(
    "text", ["", " ", "a\tb", 'a"b', "a\\b", "é", "x" * 513, " ".join(["x"] * 4097)]
)
def test_a_malformed_scope_is_refused(text: str) -> None:
    with pytest.raises(Problem) as refused:
        checked_scopes(text)

    assert (refused.value.status, refused.value.members) == (400, {"field": "scope"})


@pytest.mark.parametrize("text", [None, "108", "ada@example.com", "x" * 320])
def test_an_account_is_any_printable_text_of_bounded_length(text: str | None) -> None:
    assert checked_account(text) == text


@pytest.mark.parametrize("text", ["", "x" * 321, "a\nb", "a\x7fb"])
def test_a_malformed_account_is_refused(text: str) -> None:
    with pytest.raises(Problem) as refused:
        checked_account(text)

    assert (refused.value.status, refused.value.members) == (400, {"field": "account"})


@pytest.mark.parametrize(
    ("digits", "seconds"), [(None, 60), ("0", 0), ("007", 7), ("86400", 86_400)]
)
def test_min_ttl_is_a_number_of_seconds_with_a_default(digits: str | None, seconds: int) -> None:
    assert checked_min_ttl(digits) == seconds


@pytest.mark.parametrize("digits", ["", "-1", "+1", "1.5", "1e3", "86401", "100000", "٣", "soon"])
def test_a_malformed_min_ttl_is_refused(digits: str) -> None:
    with pytest.raises(Problem) as refused:
        checked_min_ttl(digits)

    assert (refused.value.status, refused.value.members) == (400, {"field": "min_ttl"})


# ---- batches


@pytest.mark.parametrize(
    ("body", "items"),
    [
        (b'{"requests": [{"user_id": "a"}]}', [(("user_id", "a"),)]),
        (b'{"requests": [1, 1.5]}', [b"1", b"1.5"]),
        (b'{"requests": ["a", null]}', ["a", None]),
        (
            b'{"requests": [{"user_id": "a", "user_id": "b"}]}',
            [(("user_id", "a"), ("user_id", "b"))],
        ),
    ],
)
def test_the_items_of_a_batch_stay_pairs_and_digits(body: bytes, items: list[object]) -> None:
    assert read_items(body) == items


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", "body"),
        (b"{", "body"),
        (b"\xff", "body"),
        (b"[]", "body"),
        (b"{}", "body"),
        (b'{"requests": [NaN]}', "body"),
        (b"[" * 100_000, "body"),
        (b'{"requests": [1], "more": 1}', "body"),
        (b'{"requests": [1], "requests": []}', "body"),
        (b'{"requests": {}}', "requests"),
        (b'{"requests": []}', "requests"),
        (b'{"requests": [' + b"{}," * 1002 + b"oops", "requests"),
        (b'{"requests": [' + b"0," * 4001 + b"oops", "requests"),
        (b'{"requests": [' + b"[]," * 32_001 + b"oops", "requests"),
        (b'{"requests": [' + b",".join([b"1"] * 1001) + b"]}", "requests"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_batch_of_wrong_structure_is_refused(body: bytes, field: str) -> None:
    with pytest.raises(Problem) as refused:
        read_items(body)

    assert (refused.value.status, refused.value.members) == (400, {"field": field})


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ((("user_id", "a"),), TokenRequest("a", None, None, 60)),
        ((("user_id", "a"), ("min_ttl", b"5")), TokenRequest("a", None, None, 5)),
        ((("scope", "x y"), ("user_id", "a")), TokenRequest("a", ("x", "y"), None, 60)),
        ((("user_id", "a"), ("account", "108")), TokenRequest("a", None, "108", 60)),
    ],
)
def test_an_item_is_read_and_split_alike(
    item: tuple[tuple[str, object], ...], expected: TokenRequest
) -> None:
    assert read_item(item, 0) == expected

    splitter = ItemSplitter()
    for _ in range(2):
        assert splitter.split(item) == (
            expected.user_id,
            (expected.scopes, expected.account, expected.min_ttl),
        )
    assert list(splitter.split_all([item])) == [splitter.split(item)]


@pytest.mark.parametrize(
    "item", [(("user_id", "a"), ("user_id", "b")), (("user_id", "a"), ("x", "b")), "a", b"1", None]
)
def test_an_item_of_wrong_structure_refuses_the_batch_and_is_not_split(item: object) -> None:
    with pytest.raises(Problem) as refused:
        read_item(item, 7)

    assert refused.value.members == {"field": "requests[7]"}
    assert ItemSplitter().split(item) is None
    assert list(ItemSplitter().split_all([item])) == [("", None)]


@pytest.mark.parametrize(
    ("item", "field"),
    [
        ((), "user_id"),
        ((("user_id", b"1"),), "user_id"),
        ((("user_id", "a"), ("scope", "")), "scope"),
        ((("user_id", "a"), ("account", b"1")), "account"),
        ((("user_id", "a"), ("min_ttl", "60")), "min_ttl"),
        ((("user_id", "a"), ("min_ttl", True)), "min_ttl"),
        ((("user_id", "a"), ("min_ttl", b"-1")), "min_ttl"),
    ],
)
def test_a_wrong_value_is_the_items_problem(
    item: tuple[tuple[str, object], ...], field: str
) -> None:
    problem = read_item(item, 0)

    assert isinstance(problem, Problem)
    assert problem.members == {"field": field}
