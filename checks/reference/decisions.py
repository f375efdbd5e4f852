"""The list of decisions, from their titles."""

import re

from checks.reference.sources import ROOT
from checks.reference.tables import table

_FILES = re.compile(r"\d{4}-[a-z0-9-]+\.md")


def block() -> str:
    """Return the table."""
    rows = []
    for path in sorted((ROOT / "docs/decisions").glob("[0-9]*.md")):
        text = path.read_text(encoding="utf-8")
        title = text.splitlines()[0].removeprefix("# ")
        dates = re.findall(r"^\d{4}-\d{2}-\d{2}$", text, re.MULTILINE)
        rows.append((path.name[:4], f"[{title}]({path.name})", dates[0] if dates else ""))
    return table(["number", "decision", "date"], rows)
