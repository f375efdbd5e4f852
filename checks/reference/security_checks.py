"""The tests of each security check, found by the number in their names."""

import re
from functools import cache

from checks.reference.sources import ROOT
from checks.reference.tables import MalformedPageError, ticked, with_column

_COLUMNS = 4
_TEST = re.compile(r"^(?:async )?def (test_(?:check_[0-9]{2}_)+\w+)", re.MULTILINE)


def fill(page: str) -> str:
    """Return the page with the tests of each check. Raises `MalformedPageError`."""
    return with_column(page, 3, _tests, columns=_COLUMNS)


def _tests(row: list[str]) -> str:
    number = int(row[0])
    missing = [path for path in ticked(row[2]) if not (ROOT / path).is_file()]
    found = [name for name in names() if f"check_{number:02}_" in name]
    if missing or not found or not ticked(row[2]):
        raise MalformedPageError(f"check {number}: no test, no code, or no such file: {missing}")
    return " ".join(f"`{name}`" for name in found)


@cache
def names() -> tuple[str, ...]:
    """Return the names of all tests of security checks, in alphabetical order."""
    found = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in _TEST.findall(path.read_text(encoding="utf-8"))
    }
    return tuple(sorted(found))
