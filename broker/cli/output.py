"""Output of commands: tables on stdout, progress on stderr."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager

import click

_PROGRESS_SECONDS = 5.0


def format_table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Format a heading and rows as lines with aligned columns."""
    table = [heading, *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]


@asynccontextmanager
async def progress(describe: Callable[[], str]) -> AsyncIterator[None]:
    """Print a line to stderr every five seconds until the block ends."""
    started = time.monotonic()

    async def print_lines() -> None:
        while True:
            await asyncio.sleep(_PROGRESS_SECONDS)
            click.echo(f"… {describe()}, {time.monotonic() - started:.0f} s", err=True)

    printing = asyncio.create_task(print_lines())
    try:
        yield
    finally:
        printing.cancel()
