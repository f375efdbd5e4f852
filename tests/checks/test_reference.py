"""Generated parts of the documents: how they are made, and that they are current."""

import ast

import pytest

from checks.reference import api, log_events
from checks.reference.__main__ import PAGES
from checks.reference.tables import MalformedPageError, table, with_block, with_column
from tests.docs.documents import text_of


@pytest.mark.parametrize("page", PAGES)
def test_each_generated_page_is_current(page: str) -> None:
    """Otherwise run `python -m checks.reference`."""
    current = text_of(page)
    assert PAGES[page](current) == current


def test_a_table_escapes_pipes() -> None:
    assert table(["a", "b"], [("x|y", "z")]) == "| a | b |\n|---|---|\n| x\\|y | z |"


def test_a_block_is_replaced_between_its_comments() -> None:
    page = "before\n<!-- generated: it -->\nold\n<!-- end: it -->\nafter\n"
    new = with_block(page, "it", "new")
    assert new == "before\n<!-- generated: it -->\n\nnew\n\n<!-- end: it -->\nafter\n"
    assert with_block(new, "it", "new") == new


@pytest.mark.parametrize("page", ["", "<!-- generated: it -->\n", "<!-- end: it -->\n"])
def test_a_page_without_the_block_is_refused(page: str) -> None:
    with pytest.raises(MalformedPageError):
        with_block(page, "it", "new")


def test_a_column_is_rewritten_in_rows_and_not_in_heads() -> None:
    page = "| a | b |\n|---|---|\n| x | 1 |\n\n| only one |\n"
    assert with_column(page, 1, lambda row: row[0] * 2, columns=2) == page.replace("1", "xx")


@pytest.mark.parametrize(
    ("call", "events"),
    [
        ('logger.info("m", extra={"event": "e"})', ["e"]),
        ('logger.log(level, "m", extra={"event": "a" if x else "b"})', ["a", "b"]),
        ('logger.error("m", extra={**more, "event": "e", "n": 1})', ["e"]),
        ('logger.error("m", extra={"n": 1})', [""]),
        ('logger.error("m")', [""]),
        ('other.error("m")', []),
    ],
)
def test_the_events_of_a_call_are_found(
    call: str, events: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_events, "modules", lambda: (("a.py", ast.parse(call)),))
    assert [each.event for each in log_events.log_calls()] == events


def test_the_api_page_describes_every_operation() -> None:
    page = api.page()
    described = ("`GET /v1/users/{user_id}/token`", "`POST /oauth/token`", "your receiver`")
    assert all(operation in page for operation in described)
    assert "](../reference/problems.md)" in page
    assert "$ref" not in page
