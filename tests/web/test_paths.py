"""What may stand in a path and in a query."""

from urllib.parse import quote, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.web.paths import is_user_id, path_parameter, query_parameters, user_id_from
from broker.web.problems import Problem
from tests.web.requests import request

CONTROLS = [*map(chr, range(0x20)), *map(chr, range(0x7F, 0xA0))]


@pytest.mark.parametrize("char", CONTROLS, ids=ascii)
def test_a_control_character_makes_no_user_id(char: str) -> None:
    assert not is_user_id(f"a{char}b")


@pytest.mark.parametrize("user_id", ["", "a" * 256, "a\udfffb"])
def test_neither_do_these(user_id: str) -> None:
    assert not is_user_id(user_id)


@pytest.mark.parametrize(
    "user_id", ["a", "a" * 255, "\N{GRINNING FACE}" * 255, " ", "..", "/", "\xa0", "用户", "a'--"]
)
def test_anything_else_is_a_user_id(user_id: str) -> None:
    assert is_user_id(user_id)


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=255))
def test_every_user_id_survives_the_path(user_id: str) -> None:
    asked = request(path_params={"user_id": quote(user_id, safe="")})
    assert user_id_from(asked) == user_id


def test_a_path_parameter_is_decoded_once_only() -> None:
    assert path_parameter(request(path_params={"user_id": "a%252Fb"}), "user_id") == "a%2Fb"


def test_a_plus_in_a_path_is_a_plus() -> None:
    assert path_parameter(request(path_params={"user_id": "a+b"}), "user_id") == "a+b"


@pytest.mark.parametrize("raw", ["%ff", "%ed%a0%80", "%c3", "%C0%AF"])
def test_a_path_parameter_that_is_not_utf_8_is_refused_by_name(raw: str) -> None:
    with pytest.raises(Problem) as raised:
        path_parameter(request(path_params={"sub": raw}), "sub")
    assert (raised.value.status, raised.value.members["field"]) == (400, "sub")


@pytest.mark.parametrize("raw", ["", "%00", "a%0Ab", "%7F", "%C2%85", "a" * 256])
def test_a_path_without_a_user_id_is_refused(raw: str) -> None:
    with pytest.raises(Problem) as raised:
        user_id_from(request(path_params={"user_id": raw}))
    assert (raised.value.status, raised.value.members["field"]) == (400, "user_id")


def test_an_absent_query_has_no_parameters() -> None:
    assert query_parameters(request(), {"a"}) == {}


def test_parameters_are_decoded_as_forms_are() -> None:
    asked = request(query=b"a=x+y%20z&b=%E7%94%A8")
    assert query_parameters(asked, {"a", "b"}) == {"a": "x y z", "b": "用"}


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
    "twice": (b"a=1&a=1", "a"),
    "twice, encoded": (b"a=1&%61=2", "a"),
}


@pytest.mark.parametrize(("query", "field"), MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_query_is_refused_by_name(query: bytes, field: str) -> None:
    with pytest.raises(Problem) as raised:
        query_parameters(request(query=query), {"a", "b"})
    assert (raised.value.status, raised.value.members["field"]) == (400, field)


def test_an_unknown_parameter_is_told_the_known_ones_and_not_quoted() -> None:
    with pytest.raises(Problem) as raised:
        query_parameters(request(query=b"hunter2=hunter2"), {"b", "a"})
    assert raised.value.detail == "Unknown parameter; known here: a, b."


_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(st.dictionaries(st.sampled_from(["a", "b", "c"]), _TEXT))
def test_every_query_comes_out_as_it_went_in(parameters: dict[str, str]) -> None:
    asked = request(query=urlencode(parameters).encode())
    assert query_parameters(asked, {"a", "b", "c"}) == parameters
