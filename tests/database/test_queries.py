"""SQL in its own files: how it is loaded, and that every query is used and fits the schema."""

import ast
import re
import sys
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import asyncpg
import pytest

import broker
from broker.database.queries import load_queries

ROOT = Path(broker.__file__).parent


def _package_of(folder: Path) -> str:
    return ".".join(("broker", *folder.relative_to(ROOT).parts))


FILES = sorted(
    (_package_of(path.parent), path.name)
    for path in ROOT.rglob("*.sql")
    if path.parent.name != "migrations"
)


def _queries() -> Iterator[tuple[str, str, str, str]]:
    for package, file in FILES:
        for name, sql in load_queries(package, file).items():
            yield package, file, name, sql


QUERIES = list(_queries())
EACH = pytest.mark.parametrize(
    ("package", "file", "name", "sql"),
    QUERIES,
    ids=[f"{package}-{file}-{name}" for package, file, name, _ in QUERIES],
)


@pytest.fixture
def queries_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A queries file in a temporary package named `planted`."""
    folder = tmp_path / "planted"
    folder.mkdir()
    (folder / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    yield folder / "queries.sql"
    sys.modules.pop("planted", None)


def test_the_packages_with_queries_are_found() -> None:
    assert sorted({package for package, _ in FILES}) == [
        "broker.audit",
        "broker.connections",
        "broker.consent",
        "broker.doctor",
        "broker.grants",
        "broker.grants.pending_consents",
        "broker.recovery",
        "broker.security_events",
        "broker.webhooks",
    ]


def test_each_query_is_loaded_by_its_name(queries_file: Path) -> None:
    queries_file.write_text("-- name: one\n-- Why.\nSELECT 1\n\n-- name: two_more\nSELECT 2;\n")
    assert load_queries("planted") == {"one": "-- Why.\nSELECT 1", "two_more": "SELECT 2;"}


def test_a_file_is_loaded_by_its_name(queries_file: Path) -> None:
    queries_file.with_name("more.sql").write_text("-- name: three\nSELECT 3\n")
    assert load_queries("planted", "more.sql") == {"three": "SELECT 3"}


def test_a_repeated_name_raises(queries_file: Path) -> None:
    queries_file.write_text("-- name: one\nSELECT 1\n-- name: one\nSELECT 2\n")
    with pytest.raises(ValueError, match=r"planted/queries\.sql: two queries are named one"):
        load_queries("planted")


def test_a_name_within_a_line_is_part_of_the_query(queries_file: Path) -> None:
    queries_file.write_text("-- name: one\nSELECT 1 -- name: two\n")
    assert load_queries("planted") == {"one": "SELECT 1 -- name: two"}


@pytest.mark.parametrize(("package", "file"), FILES)
def test_every_heading_of_a_queries_file_is_a_name(package: str, file: str) -> None:
    text = resources.files(package).joinpath(file).read_text(encoding="utf-8")
    assert len(re.findall(r"^\W*name\W", text, re.MULTILINE)) == len(load_queries(package, file))


def _used_queries() -> Iterator[tuple[str, str, str]]:
    """Yield package, file and name for each `SQL["name"]`, by the file that the module loads."""
    for path in ROOT.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if "load_queries(" not in text:
            continue
        loaded: dict[str, tuple[str, str]] = {}
        for node in ast.walk(ast.parse(text)):
            if (
                isinstance(node, ast.Assign)
                and isinstance(node.value, ast.Call)
                and getattr(node.value.func, "id", "") == "load_queries"
            ):
                package, *files = (ast.literal_eval(each) for each in node.value.args)
                file = files[0] if files else "queries.sql"
                loaded[ast.unparse(node.targets[0])] = (package, file)
        for variable, name in re.findall(r'\b(_[A-Z_]*SQL)\[\s*"([a-z_]+)"\s*\]', text):
            yield (*loaded[variable], name)


USED = set(_used_queries())


@EACH
def test_every_query_is_used(package: str, file: str, name: str, sql: str) -> None:
    assert (package, file, name) in USED


def test_every_used_query_exists() -> None:
    assert {(package, file, name) for package, file, name, _ in QUERIES} >= USED


@EACH
def test_every_query_is_described(package: str, file: str, name: str, sql: str) -> None:
    assert sql.startswith("-- ")


@EACH
def test_every_query_is_one_statement(package: str, file: str, name: str, sql: str) -> None:
    assert ";" not in re.sub(r"^--.*$", "", sql, flags=re.MULTILINE)


@EACH
def test_no_query_interpolates_text(package: str, file: str, name: str, sql: str) -> None:
    assert "%s" not in sql
    assert "{" not in sql


async def test_every_query_fits_the_migrated_schema(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        for *_, sql in QUERIES:
            await connection.prepare(sql)
    finally:
        await connection.close()


@EACH
def test_rows_are_limited_only_inside_an_array(
    package: str, file: str, name: str, sql: str
) -> None:
    """No `id IN (SELECT … LIMIT 10)`: PostgreSQL may run the subquery once for each row of a join.

    With `FOR UPDATE SKIP LOCKED` it then skips its own locks and returns more than 10 rows; and if
    the planner underestimates a large table, one portion takes minutes. Both have happened here.
    """
    portions = re.findall(r"\bIN \(\s*SELECT[^()]*(?:\([^()]*\)[^()]*)*\bLIMIT\b", sql)
    assert not portions, "use = ANY(ARRAY(SELECT … LIMIT …)), which chooses once"
