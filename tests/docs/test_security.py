"""docs/security.md is true: each check has a row, and what the row names is in the code."""

import ast
import re

import pytest

from tests.docs.documents import ROOT, blocks, rows, section, text_of, ticked

SECURITY = text_of("docs/security.md")
CHECKS = [
    row
    for row in rows(section(SECURITY, "## Each check, its code and its tests"))
    if row[0].isdigit()
]


def functions_there_are() -> dict[str, str]:
    """Each test function by its name, and its file's text."""
    found: dict[str, str] = {}
    for path in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                found[node.name] = str(path)
    return found


TESTS = functions_there_are()


def test_every_check_has_its_row() -> None:
    assert [int(row[0]) for row in CHECKS] == list(range(1, 41))


@pytest.mark.parametrize("row", CHECKS, ids=lambda row: row[0])
def test_each_row_names_code_and_tests_that_exist(row: list[str]) -> None:
    number, _, code, tests = row
    assert ticked(code)
    assert not [path for path in ticked(code) if not (ROOT / path).is_file()]
    assert not [name for name in ticked(tests) if name not in TESTS]
    told = [name for name in ticked(tests) if f"check_{int(number):02}_" in name]
    assert told, "no test whose name tells the check: `pytest -k` would not find it"


def test_every_test_of_a_check_is_found_by_its_number() -> None:
    named = [name for name in TESTS if re.match(r"test_check_[0-9]", name)]
    assert len(named) > 40
    assert [name for name in named if not re.match(r"test_(check_[0-9]{2}_)+(?![0-9])", name)] == []


def test_no_diagram_has_a_character_that_ends_its_line() -> None:
    diagrams = blocks(SECURITY, "mermaid")
    assert diagrams
    assert not [line for text in diagrams for line in text.splitlines() if set(line) & {";", "#"}]
