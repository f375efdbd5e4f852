"""Plain SQL in its own files: how it is loaded, that all of it is used, and that all of it fits."""

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
PACKAGES = sorted(
    ".".join(("broker", *file.parent.relative_to(ROOT).parts)) for file in ROOT.rglob("queries.sql")
)


def _queries() -> Iterator[tuple[str, str, str]]:
    for package in PACKAGES:
        for name, sql in load_queries(package).items():
            yield package, name, sql


QUERIES = list(_queries())
EACH = pytest.mark.parametrize(
    ("package", "name", "sql"), QUERIES, ids=[f"{package}-{name}" for package, name, _ in QUERIES]
)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package of the test's own, named `planted`, for a queries file."""
    folder = tmp_path / "planted"
    folder.mkdir()
    (folder / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    yield folder / "queries.sql"
    sys.modules.pop("planted", None)


def test_the_packages_with_queries_are_found() -> None:
    assert PACKAGES == [
        "broker.audit",
        "broker.connections",
        "broker.consent",
        "broker.doctor",
        "broker.grants",
        "broker.recovery",
        "broker.security_events",
        "broker.webhooks",
    ]


def test_each_query_is_loaded_by_its_name(package: Path) -> None:
    package.write_text("-- name: one\n-- Why.\nSELECT 1\n\n-- name: two_more\nSELECT 2;\n")
    assert load_queries("planted") == {"one": "-- Why.\nSELECT 1", "two_more": "SELECT 2;"}


def test_a_name_used_twice_is_refused(package: Path) -> None:
    package.write_text("-- name: one\nSELECT 1\n-- name: one\nSELECT 2\n")
    with pytest.raises(ValueError, match="two queries are named one"):
        load_queries("planted")


def test_a_line_that_only_looks_like_a_name_is_part_of_the_query(package: Path) -> None:
    package.write_text("-- name: one\nSELECT 1 -- name: two\n")
    assert load_queries("planted") == {"one": "SELECT 1 -- name: two"}


@pytest.mark.parametrize("package", PACKAGES)
def test_every_heading_of_a_queries_file_is_a_name(package: str) -> None:
    text = resources.files(package).joinpath("queries.sql").read_text(encoding="utf-8")
    assert len(re.findall(r"^\W*name\W", text, re.MULTILINE)) == len(load_queries(package))


@EACH
def test_every_query_is_described(package: str, name: str, sql: str) -> None:
    assert sql.startswith("-- ")


@EACH
def test_every_query_is_one_statement(package: str, name: str, sql: str) -> None:
    assert ";" not in re.sub(r"^--.*$", "", sql, flags=re.MULTILINE)


@EACH
def test_every_query_is_used(package: str, name: str, sql: str) -> None:
    room = ROOT.joinpath(*package.split(".")[1:])
    assert any(f'_SQL["{name}"]' in file.read_text(encoding="utf-8") for file in room.rglob("*.py"))


@EACH
def test_no_query_puts_a_value_together_from_text(package: str, name: str, sql: str) -> None:
    assert "%s" not in sql
    assert "{" not in sql


async def test_every_query_fits_the_migrated_schema(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        for _package, _name, sql in QUERIES:
            await connection.prepare(sql)
    finally:
        await connection.close()


@EACH
def test_a_portion_is_chosen_once_and_without_a_join(package: str, name: str, sql: str) -> None:
    """No `id IN (SELECT … LIMIT 10)`: PostgreSQL is free to run it once for each row of a join.

    With `FOR UPDATE SKIP LOCKED` it passes over its own locks then, and takes more than 10; and
    where a large table is thought to be small, a portion takes minutes. Both were seen here.
    """
    portions = re.findall(r"\bIN \(\s*SELECT[^()]*(?:\([^()]*\)[^()]*)*\bLIMIT\b", sql)
    assert not portions, f"{package} {name}: = ANY(ARRAY(SELECT … LIMIT …)) chooses once"
