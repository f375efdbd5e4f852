"""docs/explanation/architecture.md and docs/reference/limits.md agree with the code."""

import re
from datetime import timedelta

import asyncpg
import pytest

from checks.reference import figures
from checks.reference.imports import direct_imports, layers
from checks.reference.sources import modules
from checks.reference.tables import MalformedPageError
from tests.docs.documents import ROOT, rows, section, text_of, ticked

ARCHITECTURE = text_of("docs/explanation/architecture.md")
LIMITS = text_of("docs/reference/limits.md")
BROKER = ROOT / "broker"


def packages() -> set[str]:
    """Return the folders and modules of the product."""
    entries = {path.name.removesuffix(".py") for path in BROKER.iterdir()}
    return {name for name in entries if re.fullmatch("[a-z][a-z_]*", name)}


def levels() -> dict[str, int]:
    """Return the line of each package in the list; a higher number is further below."""
    return {name: number for number, line in enumerate(layers(ARCHITECTURE)) for name in line}


def test_every_package_is_in_the_list_of_layers() -> None:
    assert set(levels()) == packages()


def test_every_package_is_described() -> None:
    table = rows(section(ARCHITECTURE, "## Packages"))
    assert {name for row in table for name in ticked(row[0])} == packages()


def test_imports_run_one_way() -> None:
    level = levels()
    assert len(direct_imports()) > 10
    wrong = [
        f"{importer} imports {imported}"
        for importer, others in direct_imports().items()
        for imported in others
        if level[importer] >= level[imported]
    ]
    assert not wrong


def test_nothing_in_the_product_imports_the_devstack() -> None:
    assert modules()
    sources = list(BROKER.rglob("*.py"))
    assert not [path for path in sources if "devstack" in path.read_text(encoding="utf-8")]


FIGURES = [row for row in rows(LIMITS) if len(row) == 3 and len(ticked(row[2])) == 2]


@pytest.mark.parametrize("row", FIGURES, ids=lambda row: row[2].replace("`", ""))
def test_each_figure_is_that_of_the_code(row: list[str]) -> None:
    line = f"| {' | '.join(row)} |"
    assert figures.fill(line) == line


@pytest.mark.parametrize(
    ("value", "like", "expected"),
    [
        (timedelta(minutes=10), "5 min", "10 min"),
        (1.5, "3 s", "1.5 s"),
        (timedelta(days=31), "1 d", "31 d"),
        (32 * 1024, "1 KiB", "32 KiB"),
        (250_000, "7", "250000"),
        (2_500_000, "7", "2500000"),
    ],
)
def test_a_figure_keeps_its_unit(value: timedelta | float, like: str, expected: str) -> None:
    assert figures.stated(value, like) == expected


def test_a_figure_in_an_unknown_unit_is_refused() -> None:
    with pytest.raises(MalformedPageError):
        figures.stated(1, "1 fortnight")


def test_a_row_that_names_nothing_is_refused() -> None:
    with pytest.raises(MalformedPageError):
        figures.fill("| what | 1 s | `broker/clock.py` `NO_SUCH_NAME` |")


async def test_the_bound_of_each_table_is_listed(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        tables = await connection.fetch(
            "SELECT relname FROM pg_class "
            "WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')"
        )
    finally:
        await connection.close()
    listed = [name for row in rows(section(LIMITS, "## Tables")) for name in ticked(row[0])]
    assert sorted(listed) == sorted(row["relname"] for row in tables)
