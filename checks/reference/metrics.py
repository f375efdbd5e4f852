"""The table of metrics, from the module that defines them."""

import ast

from checks.reference.sources import calls, modules, name_of
from checks.reference.tables import table

_MODULE = "broker/telemetry/metrics.py"
_KINDS = ("Counter", "Gauge", "Histogram")


def rows() -> list[tuple[str, str, list[str], str]]:
    """Return each metric: name, kind, labels, help text."""
    found = []
    for call in calls(dict(modules())[_MODULE]):
        kind = name_of(call).removesuffix("Family")
        if kind in _KINDS and len(call.args) > 1:
            name, text, *labels = map(ast.literal_eval, call.args)
            found.append((name, kind.lower(), labels[0] if labels else [], text))
    return sorted(found)


def block() -> str:
    """Return the table."""
    return table(
        ["metric", "type", "labels", "meaning"],
        [
            (f"`{name}`", kind, " ".join(f"`{label}`" for label in labels), text)
            for name, kind, labels, text in rows()
        ],
    )
