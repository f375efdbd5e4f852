"""Path parameters, query strings and forms."""

from urllib.parse import quote, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.web.parameters import (
    QUERY_LIMIT,
    is_user_id,
    parse_pairs,
    path_parameter,
    query_parameters,
    read_query,
    unique_parameters,
    user_id_from,
)
from broker.web.problems import Problem
from tests.web.requests import request

CONTROLS = [*map(chr, range(0x20)), *map(chr, range(0x7F, 0xA0))]


@pytest.mark.parametrize("char", CONTROLS, ids=ascii)
def test_a_user_id_has_no_control_character(char: str) -> None:
    assert not is_user_id(f"a{char}b")


@pytest.mark.parametrize("user_id", ["", "a" * 256, "a\udfffb"])
def test_an_invalid_user_id(user_id: str) -> None:
    assert not is_user_id(user_id)


@pytest.mark.parametrize(
    "user_id", ["a", "a" * 255, "\N{GRINNING FACE}" * 255, " ", "..", "/", "\xa0", "用户", "a'--"]
)
def test_any_other_text_is_a_valid_user_id(user_id: str) -> None:
    assert is_user_id(user_id)


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=255))
def test_every_user_id_survives_the_path(user_id: str) -> None:
    received = request(path_params={"user_id": quote(user_id, safe="")})
    assert user_id_from(received) == user_id


def test_a_path_parameter_is_decoded_only_once() -> None:
    assert path_parameter(request(path_params={"user_id": "a%252Fb"}), "user_id") == "a%2Fb"


def test_a_plus_in_a_path_is_a_plus() -> None:
    assert path_parameter(request(path_params={"user_id": "a+b"}), "user_id") == "a+b"


@pytest.mark.parametrize("raw", ["%ff", "%ed%a0%80", "%c3", "%C0%AF"])
def test_a_path_parameter_that_is_not_utf_8_is_refused_by_name(raw: str) -> None:
    with pytest.raises(Problem) as raised:
        path_parameter(request(path_params={"sub": raw}), "sub")
    assert (raised.value.status, raised.value.members["field"]) == (400, "sub")


@pytest.mark.parametrize("raw", ["", "%00", "a%0Ab", "%7F", "%C2%85", "a" * 256])
def test_a_path_with_an_invalid_user_id_is_refused(raw: str) -> None:
    with pytest.raises(Problem) as raised:
        user_id_from(request(path_params={"user_id": raw}))
    assert (raised.value.status, raised.value.members["field"]) == (400, "user_id")


def test_an_absent_query_has_no_parameters() -> None:
    assert query_parameters(request(), {"a"}) == {}


def test_query_parameters_are_decoded_like_form_fields() -> None:
    received = request(query=b"a=x+y%20z&b=%E7%94%A8")
    assert query_parameters(received, {"a", "b"}) == {"a": "x y z", "b": "用"}


def test_a_parameter_may_be_empty() -> None:
    assert query_parameters(request(query=b"a="), {"a"}) == {"a": ""}


MALFORMED = {
    "no value": (b"a", "query"),
    "empty pair": (b"a=1&&b=2", "query"),
    "only a separator": (b"&", "query"),
    "not UTF-8": (b"a=%ff", "query"),
    "a bare byte": (b"a=\xc3\xa9", "query"),
    "too many": (b"&".join(b"a%d=1" % number for number in range(21)), "query"),
    "unknown": (b"c=1", "query"),
    "other case": (b"A=1", "query"),
    "semicolons": (b"a=1;b=2;c=3&c=1", "query"),
    "repeated": (b"a=1&a=1", "a"),
    "repeated, encoded": (b"a=1&%61=2", "a"),
}


@pytest.mark.parametrize(("query", "field"), MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_query_is_refused_by_name(query: bytes, field: str) -> None:
    with pytest.raises(Problem) as raised:
        query_parameters(request(query=query), {"a", "b"})
    assert (raised.value.status, raised.value.members["field"]) == (400, field)


def test_the_refusal_of_an_unknown_parameter_lists_the_known_ones_and_quotes_nothing() -> None:
    with pytest.raises(Problem) as raised:
        query_parameters(request(query=b"hunter2=hunter2"), {"b", "a"})
    assert raised.value.detail == "Unknown parameter; known here: a, b."


_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(st.dictionaries(st.sampled_from(["a", "b", "c"]), _TEXT))
def test_every_query_survives_encoding_and_decoding(parameters: dict[str, str]) -> None:
    received = request(query=urlencode(parameters).encode())
    assert query_parameters(received, {"a", "b", "c"}) == parameters


READABLE_QUERIES = {
    "empty": (b"", {}),
    "unknown names": (b"hl=ko&x=1", {"hl": "ko", "x": "1"}),
    "no value": (b"a&b=", {"a": "", "b": ""}),
    "empty pairs": (b"&a=1&&", {"a": "1"}),
    "as long as allowed": (b"a=" + b"x" * (QUERY_LIMIT - 2), {"a": "x" * (QUERY_LIMIT - 2)}),
}


@pytest.mark.parametrize(("query", "parameters"), READABLE_QUERIES.values(), ids=READABLE_QUERIES)
def test_a_browsers_query_is_read_leniently(query: bytes, parameters: dict[str, str]) -> None:
    assert read_query(query) == parameters


UNREADABLE_QUERIES = {
    "too long": b"a=" + b"x" * (QUERY_LIMIT - 1),
    "too many": b"&".join(b"a%d=1" % number for number in range(31)),
    "repeated": b"a=1&a=2",
    "repeated, encoded": b"a=1&%61=2",
    "not UTF-8": b"a=%ff",
    "a bare byte": b"a=\xc3\xa9",
}


@pytest.mark.parametrize("query", UNREADABLE_QUERIES.values(), ids=UNREADABLE_QUERIES)
def test_an_unreadable_browser_query_has_no_parameters(query: bytes) -> None:
    assert read_query(query) is None


def test_the_number_of_form_fields_is_bounded() -> None:
    assert unique_parameters(b"a=1&b=2", at_most=2) == {"a": "1", "b": "2"}
    assert unique_parameters(b"a=1&b=2&c=3", at_most=2) is None


def test_repeated_pairs_keep_their_order() -> None:
    pairs = [("b", "1"), ("a", "2"), ("b", "3")]
    assert parse_pairs(urlencode(pairs).encode(), at_most=3) == pairs


@pytest.mark.parametrize("encoded", [b"a", b"a=1&", b"&"])
def test_a_pair_without_an_equals_sign_is_an_error_only_if_strict(encoded: bytes) -> None:
    assert parse_pairs(encoded, at_most=3) is not None
    with pytest.raises(ValueError, match="bad query field"):
        parse_pairs(encoded, at_most=3, is_strict=True)
