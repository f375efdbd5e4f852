"""docs/reference/cli.md, from the commands' own help."""

import re
from collections.abc import Iterator

import click

from broker.cli import main
from checks.reference.tables import table

_HEAD = """# Command line

Generated from `--help` by `python -m checks.reference`.

`broker` exits with 0 on success, with 1 on a failure that it names in one line, and with 2 on wrong
usage, unless a command says otherwise. Results go to stdout, everything else to stderr. Colour is
used on a terminal only, and never with `NO_COLOR`. `make run` installs the program into
`.venv/bin`; in the image it is the entry point.

Shell completion: `eval "$(_BROKER_COMPLETE=bash_source broker)"` for bash; `zsh_source` and
`fish_source` for the others.
"""
_WIDTH = 100


def page() -> str:
    """Return the whole page."""
    return "\n".join([_HEAD, *_described(main, "broker")]).rstrip() + "\n"


def _described(command: click.Command, path: str) -> Iterator[str]:
    context = click.Context(
        command,
        info_name=path,
        max_content_width=_WIDTH,
        terminal_width=_WIDTH,
        # A command keeps the help option of the first context that it sees.
        help_option_names=main.context_settings["help_option_names"],
    )
    yield f"## {path}\n" if path.count(" ") < 2 else f"### {path}\n"
    yield f"```text\n{_usage(command, context)}\n\n{_description(command, context)}\n```\n"
    rows = [record for each in command.params if (record := each.get_help_record(context))]
    options = [(f"`{names}`", text) for names, text in rows if not names.endswith("--help")]
    if options:
        yield table(["option", "meaning"], options) + "\n"
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            if child is not None:
                yield from _described(child, f"{path} {name}")


def _usage(command: click.Command, context: click.Context) -> str:
    formatter = context.make_formatter()
    command.format_usage(context, formatter)
    return formatter.getvalue().strip()


def _description(command: click.Command, context: click.Context) -> str:
    formatter = context.make_formatter()
    command.format_help_text(context, formatter)
    return re.sub(r"^ {2}", "", formatter.getvalue().strip("\n"), flags=re.MULTILINE)
