"""`broker --help`, and that of each group, show complete summaries."""

from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from broker.cli import main


def _groups(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from _groups(command, (*path, name))


GROUPS = list(_groups(main))


@pytest.mark.parametrize("path", GROUPS, ids=[" ".join(("broker", *path)) for path in GROUPS])
def test_no_summary_of_a_command_is_truncated(path: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(main, [*path, "--help"], env={"COLUMNS": "80"})
    assert shown.exit_code == 0
    assert "..." not in shown.output.partition("Commands:")[2]
