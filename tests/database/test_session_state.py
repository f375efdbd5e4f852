"""No statement leaves anything in its session: connections are lent again without a reset."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import broker
from broker.database.queries import load_queries

_ROOT = Path(broker.__file__).parent
_PACKAGES = sorted(
    ".".join(("broker", *path.parent.relative_to(_ROOT).parts))
    for path in _ROOT.rglob("queries.sql")
)
_WHOLE = {"SELECT", "INSERT", "UPDATE", "DELETE", "WITH"}
"""What can't outlast its transaction, whatever follows, but for `_LASTING` functions."""

_LASTING = re.compile(
    r"\bpg_(?:try_)?advisory_(?:un)?lock|\b(?:nextval|setval)\s*\(|\bTEMP"
    # What is set with `true` ends with its transaction.
    r"|\bset_config\s*\((?![^()]*,\s*true\s*\))",
    re.I,
)
_OF_A_SESSION = re.compile(
    r"\s*(?:SET|RESET|LISTEN|PREPARE|DECLARE|LOAD|DISCARD|BEGIN|CREATE TEMP\w*)\s"
)
_OWN_CONNECTION = {
    # These connect by themselves, outside the pool.
    "database/schema.py",
    "grants/change_feed.py",
    # Every connection that is no pooler's has the same settings from its start, once and for all.
    "database/timeouts.py",
    # For `schema`'s connection.
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


@pytest.mark.parametrize("package", _PACKAGES)
def test_no_named_query_leaves_anything_behind(package: str) -> None:
    for name, query in load_queries(package).items():
        bare = re.sub(r"--[^\n]*", "", query).strip()
        assert bare.split(maxsplit=1)[0] in _WHOLE, f"{package}: {name}"
        assert not _LASTING.search(bare), f"{package}: {name}"
        assert ";" not in bare.rstrip(";"), f"{package}: {name} is more than one"


def test_no_query_within_the_code_leaves_anything_behind() -> None:
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
def test_what_would_be_left_behind_is_recognised(query: str) -> None:
    assert _LASTING.search(query)


def test_locks_that_end_with_the_transaction_are_not_meant() -> None:
    assert not _LASTING.search("SELECT pg_advisory_xact_lock(1)")
