"""The actions of the audit trail, and where each is recorded."""

import re

from checks.reference.sources import calls, keyword, modules, strings
from checks.reference.tables import table, with_block


def recorded() -> dict[str, set[str]]:
    """Return each action that the code passes as `action=`, with the modules that do."""
    found: dict[str, set[str]] = {}
    for module, tree in modules():
        for call in calls(tree):
            action = keyword(call, "action")
            for text in strings(action) if action is not None else ():
                if re.fullmatch("[a-z_]+", text):
                    found.setdefault(text, set()).add(module)
    return found


def fill(page: str) -> str:
    """Return the page with the modules that record each action of its first table."""
    written, _, _ = page.partition("<!-- generated")
    listed = set(re.findall(r"^\| `([a-z_]+)` \|", written, re.MULTILINE)) - {"action"}
    places = recorded()
    rows = [
        (f"`{action}`", " ".join(f"`{module}`" for module in sorted(_modules(action, places))))
        for action in sorted(listed)
    ]
    return with_block(page, "actions", table(["action", "recorded by"], rows))


def _modules(action: str, places: dict[str, set[str]]) -> set[str]:
    """Return the modules that pass the action, or else those that name it."""
    return places.get(action) or {module for module, tree in modules() if action in strings(tree)}
