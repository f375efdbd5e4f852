"""Settings of commands: a setting with a problem ends the command."""

import os
from collections.abc import Callable, Mapping
from typing import TypeVar

import click

from broker.settings import SettingsError

_T = TypeVar("_T")


def from_environment(load: Callable[[Mapping[str, str]], _T]) -> _T:
    """Load settings from the environment variables. Raises `click.ClickException`."""
    try:
        return load(os.environ)
    except SettingsError as error:
        raise settings_error(error) from error


def settings_error(error: SettingsError) -> click.ClickException:
    """Return the error that lists all problems, one per line."""
    count = len(error.problems)
    heading = "a setting is invalid:" if count == 1 else f"{count} settings are invalid:"
    return click.ClickException("\n  - ".join([heading, *(each.text for each in error.problems)]))
