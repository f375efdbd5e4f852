"""No statement leaves state in its session, because connections are lent again without a reset."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import broker
from tests.database.test_queries import EACH

_ROOT = Path(broker.__file__).parent
_STATEMENTS = {"SELECT", "INSERT", "UPDATE", "DELETE", "WITH"}
"""Statements that leave nothing after their transaction, except by `_LASTING` functions."""

_LASTING = re.compile(
    r"\bpg_(?:try_)?advisory_(?:un)?lock|\b(?:nextval|setval)\s*\(|\bTEMP"
    # With `true` the setting ends with its transaction.
    r"|\bset_config\s*\((?![^()]*,\s*true\s*\))",
    re.I,
)
_OF_A_SESSION = re.compile(
    r"\s*(?:SET|RESET|LISTEN|PREPARE|DECLARE|LOAD|DISCARD|BEGIN|CREATE TEMP\w*)\s"
)
_OWN_CONNECTION = {
    # These use connections outside the pool.
    "database/schema.py",
    "grants/change_feed.py",
    # Sets the same session settings on every connection without a pooler, once.
    "database/timeouts.py",
    # On the connection of `schema`.
    "database/lock_waits.py",
}


def _literals() -> Iterator[tuple[str, str]]:
    for path in _ROOT.rglob("*.py"):
        name = path.relative_to(_ROOT).as_posix()
        if name in _OWN_CONNECTION:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield name, node.value


@EACH
def test_no_named_query_leaves_session_state(package: str, file: str, name: str, sql: str) -> None:
    bare = re.sub(r"--[^\n]*", "", sql).strip()
    assert bare.split(maxsplit=1)[0] in _STATEMENTS
    assert not _LASTING.search(bare)
    assert ";" not in bare.rstrip(";")


def test_no_query_in_the_code_leaves_session_state() -> None:
    lasting = [
        (where, text)
        for where, text in _literals()
        if _OF_A_SESSION.match(text) or (re.match(r"\s*SELECT\b", text) and _LASTING.search(text))
    ]
    assert lasting == []


@pytest.mark.parametrize(
    "query",
    [
        "SELECT pg_advisory_lock(1)",
        "SELECT pg_try_advisory_lock(1)",
        "SELECT set_config('a.b', 'c', false)",
        "CREATE TEMP TABLE t ()",
    ],
)
def test_session_state_is_recognised(query: str) -> None:
    assert _LASTING.search(query)


def test_a_transaction_lock_is_no_session_state() -> None:
    assert not _LASTING.search("SELECT pg_advisory_xact_lock(1)")
