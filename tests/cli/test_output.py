"""Tables and progress of commands."""

import asyncio

import pytest

from broker.cli import output
from broker.cli.output import format_table, progress


@pytest.mark.parametrize(
    ("rows", "lines"),
    [
        ([], ["NAME  KEYS"]),
        ([("a", "1")], ["NAME  KEYS", "a     1"]),
        ([("a-long-name", "1"), ("b", "")], ["NAME         KEYS", "a-long-name  1", "b"]),
    ],
)
def test_columns_are_aligned(rows: list[tuple[str, str]], lines: list[str]) -> None:
    assert format_table(("NAME", "KEYS"), rows) == lines


async def test_progress_is_printed_to_stderr_until_the_block_ends(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "_PROGRESS_SECONDS", 0.01)
    async with progress(lambda: "7 of 9"):
        await asyncio.sleep(0.1)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("… 7 of 9, 0 s\n")
    await asyncio.sleep(0.05)
    assert capsys.readouterr().err == ""
