"""How commands say what is wrong with what they were given."""

import click

from broker.settings import SettingsError


def settings_complaint(error: SettingsError) -> click.ClickException:
    """All problems of the settings, a line each."""
    count = len(error.problems)
    heading = "a setting is wrong:" if count == 1 else f"{count} settings are wrong:"
    return click.ClickException("\n  - ".join([heading, *error.problems]))
