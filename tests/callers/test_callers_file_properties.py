"""Any callers file is read or refused: nothing else is raised, and no key is shown."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker.callers import checked_yaml
from broker.callers.callers_file import CallersFile, CallersFileError, decode_callers, parse_callers
from tests.callers.stanzas import CONTRACT, KEY, SCOPE

_WORDS = st.sampled_from(
    [
        "callers", "keys", "workload", "issuer", "audience", "subject", "can", "scopes", "users",
        "return_to", "require_confirmation", "tokens:read", "*", "on", "<<", SCOPE, "sha256:", "",
    ]
)  # fmt: skip
_LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | _WORDS
_TREES = st.recursive(
    _LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(_WORDS | st.text(max_size=10), inner, max_size=4)
    ),
    max_leaves=25,
)
_SNIPPETS = st.sampled_from([*"[]{}:,-?*&!|>'\"%@`#\t\n\\ \r\x00\x85\u2028\ud800~", "---", "<<"])

quickly = settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(params=["C", "Python"], autouse=True)
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    loader = checked_yaml.PythonLoader if request.param == "Python" else checked_yaml.LOADER
    monkeypatch.setattr(checked_yaml, "LOADER", loader)


def read(text: str) -> CallersFile | None:
    try:
        return parse_callers(text)
    except CallersFileError as error:
        problems = error.problems
    assert problems
    assert all(problem and "\n" not in problem for problem in problems)
    assert KEY not in "".join(problems)
    return None


@quickly
@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    read(text)


@quickly
@given(st.binary())
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    try:
        text = decode_callers(content)
    except CallersFileError:
        return
    read(text)


@quickly
@given(_TREES)
def test_any_document_is_read_or_refused(tree: object) -> None:
    read(json.dumps(tree))
    read(json.dumps({"callers": {"a": tree, "b": {"can": tree, "keys": tree, "users": tree}}}))


@quickly
@given(st.data())
def test_a_valid_file_with_a_typing_error_is_read_or_refused(data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(CONTRACT)))
    end = data.draw(st.integers(start, min(start + 12, len(CONTRACT))))
    inserted = data.draw(_SNIPPETS | st.text(max_size=3))

    read(CONTRACT[:start] + inserted + CONTRACT[end:])


@quickly
@given(st.data())
def test_a_key_pasted_anywhere_is_never_shown(data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(CONTRACT)))
    around = data.draw(st.sampled_from(["", " ", "'", '"', "\n", "\n  ", ": ", "*", "&", "!", "%"]))

    read(CONTRACT[:position] + around + KEY + around + CONTRACT[position:])


@quickly
@given(st.integers(0, len(CONTRACT) - 1))
def test_a_truncated_file_never_widens_a_policy(length: int) -> None:
    whole, cut = read(CONTRACT), read(CONTRACT[:length])

    assert whole is not None
    for caller in cut.callers if cut else ():
        assert caller.permissions <= whole.callers[0].permissions
        assert set(caller.users) <= set(whole.callers[0].users)
