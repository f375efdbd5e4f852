"""docs/reference/security-checks.md: each check has a row, and the row is that of the code."""

import ast
import re

import pytest

from checks.reference import security_checks
from checks.reference.tables import MalformedPageError
from tests.docs.documents import ROOT, rows, text_of, ticked

PAGE = text_of("docs/reference/security-checks.md")
CHECKS = [row for row in rows(PAGE) if row[0].isdigit()]


def test_every_check_has_its_row() -> None:
    assert [int(row[0]) for row in CHECKS] == list(range(1, 41))


@pytest.mark.parametrize("row", CHECKS, ids=lambda row: row[0])
def test_each_row_names_existing_code_and_all_tests_of_its_check(row: list[str]) -> None:
    number, _, code, tests = row
    assert ticked(code)
    assert not [path for path in ticked(code) if not (ROOT / path).is_file()]
    assert ticked(tests)
    found = [name for name in security_checks.names() if f"check_{int(number):02}_" in name]
    assert ticked(tests) == found


def test_every_test_of_a_check_is_found_by_its_number() -> None:
    named = [name for name in all_tests() if re.match(r"test_check_[0-9]", name)]
    assert len(named) > 40
    assert [name for name in named if not re.match(r"test_(check_[0-9]{2}_)+(?![0-9])", name)] == []


def all_tests() -> set[str]:
    """Return the name of each test function."""
    return {
        node.name
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


@pytest.mark.parametrize(
    "row",
    [
        "| 7 | what | `broker/no_such_module.py` | |",
        "| 7 | what | | |",
        "| 99 | what | `broker/clock.py` | |",
    ],
)
def test_a_row_without_code_or_tests_is_refused(row: str) -> None:
    with pytest.raises(MalformedPageError):
        security_checks.fill(row)
