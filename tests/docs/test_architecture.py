"""docs/architecture.md is true: imports run one way, and each figure is the one in the code."""

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from datetime import timedelta
from types import ModuleType

import asyncpg
import pytest

from tests.docs.documents import ROOT, blocks, rows, section, text_of, ticked

ARCHITECTURE = text_of("docs/architecture.md")
BROKER = ROOT / "broker"

_UNITS: dict[str, timedelta | int] = {
    "s": timedelta(seconds=1),
    "min": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "KiB": 1024,
    "MiB": 1024 * 1024,
}


def layers() -> dict[str, int]:
    """Each package's line in the list; a higher number is further below."""
    (listed,) = blocks(ARCHITECTURE, "layers")
    lines = listed.splitlines()
    return {name: number for number, line in enumerate(lines) for name in line.split()}


def packages() -> set[str]:
    """The folders and modules of the product."""
    entries = {path.name.removesuffix(".py") for path in BROKER.iterdir()}
    return {name for name in entries if re.fullmatch("[a-z][a-z_]*", name)}


def imports() -> Iterator[tuple[str, str, str]]:
    """Every import between two packages: the importer, the imported, and the file."""
    for path in BROKER.rglob("*.py"):
        parts = path.relative_to(BROKER).with_suffix("").parts
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for module in _imported(node):
                name = module.split(".")
                if name[0] == "broker" and len(name) > 1 and name[1] != parts[0]:
                    yield parts[0], name[1], str(path.relative_to(ROOT))


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module == "broker":
        return [f"broker.{alias.name}" for alias in node.names if alias.name != "__version__"]
    if isinstance(node, ast.ImportFrom):
        return [node.module or ""]
    return []


def test_no_diagram_has_a_character_that_ends_its_line() -> None:
    """Mermaid takes a semicolon for the end of a line, and a hash for the start of an entity."""
    diagrams = blocks(ARCHITECTURE, "mermaid")
    assert diagrams
    assert not [line for text in diagrams for line in text.splitlines() if set(line) & {";", "#"}]


def test_every_package_is_in_the_list_of_layers() -> None:
    assert set(layers()) == packages()


def test_every_package_is_described() -> None:
    table = rows(section(ARCHITECTURE, "## Packages"))
    assert {name for row in table for name in ticked(row[0])} == packages()


def test_imports_run_one_way() -> None:
    level = layers()
    wrong = [
        f"{place}: {importer} imports {imported}"
        for importer, imported, place in imports()
        if level[importer] >= level[imported]
    ]
    assert not wrong


def test_nothing_in_the_product_imports_the_devstack() -> None:
    sources = list(BROKER.rglob("*.py"))
    assert sources
    assert not [path for path in sources if "devstack" in path.read_text(encoding="utf-8")]


FIGURES = [
    row for row in rows(section(ARCHITECTURE, "## What is held, and for how long")) if len(row) == 3
]


@pytest.mark.parametrize("row", FIGURES, ids=lambda row: row[2].replace("`", ""))
def test_each_figure_is_the_one_in_the_code(row: list[str]) -> None:
    _, figure, where = row
    path, name = ticked(where)
    if not name.isidentifier() or not path.endswith(".py") or not figure[0].isdigit():
        assert name in text_of(path)
        return
    module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
    assert _comparable(_value(module, name)) == _comparable(_stated(figure))


async def test_what_bounds_each_table_is_told(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        tables = await connection.fetch(
            "SELECT relname FROM pg_class "
            "WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')"
        )
    finally:
        await connection.close()
    told = [name for row in rows(section(ARCHITECTURE, "### Tables")) for name in ticked(row[0])]
    assert sorted(told) == sorted(row["relname"] for row in tables)


def _stated(figure: str) -> timedelta | float:
    number, _, unit = figure.partition(" ")
    return float(number) * _comparable(_UNITS[unit]) if unit else float(number)


def _comparable(value: timedelta | float) -> float:
    return value.total_seconds() if isinstance(value, timedelta) else float(value)


def _value(module: ModuleType, name: str) -> timedelta | float:
    """A constant of the module, or the default of a parameter of one of its classes."""
    if hasattr(module, name):
        value: timedelta | float = getattr(module, name)
        return value
    for _, made in inspect.getmembers(module, inspect.isclass):
        parameter = inspect.signature(made).parameters.get(name)
        if made.__module__ == module.__name__ and parameter is not None:
            default: timedelta | float = parameter.default
            return default
    raise AssertionError(f"{module.__name__} has no {name}")
