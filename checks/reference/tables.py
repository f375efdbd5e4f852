"""Markdown tables and generated blocks of a page."""

import re
from collections.abc import Callable, Iterable, Sequence

_CELL = re.compile(r"(?<!\\)\|")


class MalformedPageError(ValueError):
    """A page lacks what the generator fills in."""


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; a pipe in a cell is escaped."""
    lines = [head, ["---"] * len(head), *rows]
    text = "\n".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in lines
    )
    return text.replace("| --- ", "|---").replace("|--- |", "|---|")


def cells(row: str) -> list[str]:
    """Return the cells of one row of a table."""
    return [cell.strip() for cell in _CELL.split(row)[1:-1]]


def ticked(cell: str) -> list[str]:
    """Return what stands between backticks."""
    return re.findall(r"`([^`]+)`", cell)


def with_block(page: str, name: str, content: str) -> str:
    """Replace the block between the two comments that name it. Raises `MalformedPageError`."""
    begin, end = f"<!-- generated: {name} -->\n", f"\n<!-- end: {name} -->"
    if page.count(begin) != 1 or page.count(end) != 1:
        raise MalformedPageError(f"no block {name}")
    before, rest = page.split(begin)
    return f"{before}{begin}\n{content.strip()}\n{end}{rest.split(end)[1]}"


def with_column(page: str, number: int, value: Callable[[list[str]], str], *, columns: int) -> str:
    """Rewrite one column of each row of the tables that have so many columns."""
    lines = page.split("\n")
    for position, line in enumerate(lines):
        row = cells(line) if line.startswith("|") else []
        is_head = "|---" in "".join(lines[position : position + 2])
        if len(row) == columns and not is_head:
            row[number] = value(row)
            lines[position] = f"| {' | '.join(row)} |"
    return "\n".join(lines)
