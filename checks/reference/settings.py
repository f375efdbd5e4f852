"""The tables of settings, from their declarations in broker/settings/table.py."""

from typing import Any

from broker.settings.table import SETTINGS, Section, Setting
from checks.reference.tables import table, with_block


def fill(page: str) -> str:
    """Return the page with the table of each section."""
    for section in Section:
        page = with_block(page, f"settings, {section}", block(section))
    return page


def block(section: Section) -> str:
    """Return the table of one section."""
    rows = [_row(setting) for setting in SETTINGS if setting.section is section]
    return table(["setting", "default", "meaning"], rows)


def _row(setting: Setting[Any]) -> tuple[str, str, str]:
    parts = [
        "*Secret.*" if setting.is_secret else "",
        setting.meaning,
        f"Example: `{setting.example}`." if setting.example else "",
    ]
    return f"`{setting.name}`", _default(setting), " ".join(filter(None, parts))


def _default(setting: Setting[Any]) -> str:
    if setting.default:
        return f"`{setting.default}`"
    return setting.if_unset or ("required" if setting.required else "none")
