"""The `broker` command. On bad input a command ends with one clear line and a non-zero status."""

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
"""The module of each command. It is imported when the command runs: what `doctor` needs must not
slow down the start of `serve`."""

_DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO})


class _Commands(click.Group):
    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command; a full disk is one line."""
        try:
            return super().main(*args, **kwargs)
        except OSError as error:
            if error.errno not in _DISK_ERRORS:
                raise
            click.echo(f"Error: can't write to stdout: {error.strerror}", err=True)
            sys.exit(1)

    def list_commands(self, _ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, _ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = _COMMANDS.get(cmd_name)
        if module is None:
            return None
        command = getattr(_import_without_gc(module), cmd_name)
        assert isinstance(command, click.Command)  # noqa: S101  (by the table above)
        return command


def _import_without_gc(name: str) -> ModuleType:
    """Import a module without garbage collections, which would take a sixth of the start.

    What is imported stays, so it is frozen: later collections skip it too.
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
    """Run the Google OAuth flow, and serve short-lived access tokens to internal services.

    Environment variables configure everything; docs/reference/settings.md lists them.
    """
