"""The `broker` command. Every command ends with a clear line and a non-zero status on bad input."""

import errno
import gc
import sys
from collections.abc import Mapping
from importlib import import_module
from types import ModuleType
from typing import Any

import click

from broker import __version__

_COMMANDS: Mapping[str, str] = {
    "audit": "broker.cli.audit",
    "serve": "broker.cli.serve",
    "migrate": "broker.cli.migrate",
    "doctor": "broker.cli.doctor",
    "drill": "broker.cli.drill",
    "callers": "broker.cli.callers",
    "keys": "broker.cli.keys",
    "risc": "broker.cli.risc",
    "status": "broker.cli.status",
}
"""Where each command is, under its own name. A command is imported when it is asked for: what
`doctor` needs must not make every start of `serve` slower."""

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO})


class _Commands(click.Group):
    def main(self, *args: Any, **kwargs: Any) -> Any:
        """As always; and a disk that is full is told in a line."""
        try:
            return super().main(*args, **kwargs)
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            click.echo(f"Error: can't write to stdout: {error.strerror}", err=True)
            sys.exit(1)

    def list_commands(self, _ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, _ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = _COMMANDS.get(cmd_name)
        if module is None:
            return None
        command = getattr(_import_undisturbed(module), cmd_name)
        assert isinstance(command, click.Command)  # noqa: S101  (by the table above)
        return command


def _import_undisturbed(name: str) -> ModuleType:
    """What is imported stays: looking for garbage in it takes a sixth of the time of a start.

    Frozen, it is not looked through by any later collection either.
    """
    gc.disable()
    try:
        return import_module(name)
    finally:
        gc.freeze()
        gc.enable()


@click.command(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="broker")
def main() -> None:
    """Own the Google OAuth dance, and hand short-lived access tokens to internal services.

    Everything is configured by environment variables; docs/configuration.md lists them all.
    """
