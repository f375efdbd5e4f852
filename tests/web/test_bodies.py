"""Request bodies: what is accepted, what is refused, and how much is read until then."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.web.bodies import BODY_LIMIT, read_json_object
from broker.web.problems import Problem
from tests.web.requests import request

JSON = ("Content-Type", "application/json")


async def _refusal(*chunks: bytes, headers: tuple[tuple[str, str], ...] = (JSON,)) -> Problem:
    with pytest.raises(Problem) as raised:
        await read_json_object(request(*chunks, headers=headers))
    assert raised.value.code == "invalid_request"
    return raised.value


async def test_an_object_is_read_from_several_chunks() -> None:
    assert await read_json_object(request(b'{"a"', b": ", b"[1, null]}")) == {"a": [1, None]}


@pytest.mark.parametrize(
    "media_type", ["application/json", "Application/JSON", "application/json; charset=utf-8"]
)
async def test_the_media_type_may_have_any_case_and_parameters(media_type: str) -> None:
    assert await read_json_object(request(b"{}", headers=[("Content-Type", media_type)])) == {}


@pytest.mark.parametrize(
    "media_type", ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", ""]
)
async def test_another_media_type_is_refused(media_type: str) -> None:
    problem = await _refusal(b"{}", headers=(("Content-Type", media_type),))
    assert (problem.status, problem.members["field"]) == (415, "content-type")


async def test_a_body_without_a_media_type_is_refused() -> None:
    assert (await _refusal(b"{}", headers=())).status == 415


async def test_a_declared_length_over_the_limit_is_refused_without_reading() -> None:
    headers = (JSON, ("Content-Length", str(BODY_LIMIT + 1)))
    body = request(headers=headers)
    with pytest.raises(Problem) as raised:
        await read_json_object(body)
    assert raised.value.status == 413
    assert (await body.receive())["type"] == "http.request"


@pytest.mark.parametrize("length", ["9" * 40, "-1", "1e3", "1, 1"])
async def test_an_invalid_length_is_refused(length: str) -> None:
    assert (await _refusal(b"{}", headers=(JSON, ("Content-Length", length)))).status == 413


async def test_an_undeclared_length_over_the_limit_is_refused_at_the_limit() -> None:
    body = request(b"x" * BODY_LIMIT, b"x", b"unread")
    with pytest.raises(Problem) as raised:
        await read_json_object(body)
    assert (raised.value.status, raised.value.members["field"]) == (413, "body")
    assert (await body.receive())["body"] == b"unread"


async def test_a_body_that_is_longer_than_declared_is_refused_at_the_limit() -> None:
    headers = (JSON, ("Content-Length", "2"))
    assert (await _refusal(b"x" * (BODY_LIMIT + 1), headers=headers)).status == 413


async def test_a_smaller_limit_can_be_set() -> None:
    with pytest.raises(Problem) as raised:
        await read_json_object(request(b'{"a": 1}'), limit=7)
    assert raised.value.status == 413


NOT_JSON = {
    "empty": b"",
    "incomplete": b'{"a":',
    "two documents": b"{}{}",
    "trailing comma": b'{"a": 1,}',
    "comment": b"{} // x",
    "single quotes": b"{'a': 1}",
    "NaN": b'{"a": NaN}',
    "Infinity": b'{"a": Infinity}',
    "minus Infinity": b'{"a": -Infinity}',
    "a repeated member": b'{"a": 1, "a": 2}',
    "a repeated member, escaped": b'{"a": 1, "\\u0061": 2}',
    "a repeated member, nested": b'{"a": [{"b": 1, "b": 1}]}',
    "not UTF-8": b'{"a": "\xff"}',
    "surrogates as bytes": b'{"a": "\xed\xa0\x80"}',
    "a lone surrogate": b'{"a": "\\ud800"}',
    "a lone surrogate as a name": b'{"\\udc00": 1}',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "byte order mark": b"\xef\xbb\xbf{}",
    "a number out of range": b'{"a": 1e400}',
    "control character": b'{"a": "\n"}',
    "endless digits": b'{"a": ' + b"9" * 5000 + b"}",
    "deep lists": b"[" * 60_000,
    "deep lists, closed": b"[" * 30_000 + b"]" * 30_000,
    "deep objects": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
}


@pytest.mark.parametrize("body", NOT_JSON.values(), ids=NOT_JSON)
async def test_invalid_json_is_refused(body: bytes) -> None:
    problem = await _refusal(body)
    assert (problem.status, problem.members["field"]) == (400, "body")


@pytest.mark.parametrize("body", [b"[]", b'"text"', b"1", b"null", b"true"])
async def test_json_that_is_not_an_object_is_refused(body: bytes) -> None:
    assert (await _refusal(body)).detail == "The body must be a JSON object."


async def test_a_refusal_quotes_nothing_of_the_body() -> None:
    problem = await _refusal(b'{"secret": "hunter2"')
    assert "hunter2" not in json.dumps(problem.body())


@given(st.binary(max_size=200))
async def test_any_body_is_an_object_or_a_problem(body: bytes) -> None:
    try:
        outcome: object = await read_json_object(request(body))
    except Problem as problem:
        outcome = problem.status
    assert outcome == 400 or outcome == json.loads(body)


_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)


@given(st.dictionaries(_TEXT, _TEXT | st.integers() | st.none() | st.lists(_TEXT)))
async def test_every_object_survives_encoding_and_decoding(document: dict[str, object]) -> None:
    assert await read_json_object(request(json.dumps(document).encode())) == document
