"""The table of problem codes, from the problems that the code makes."""

import ast

from checks.reference.sources import calls, modules, name_of
from checks.reference.tables import table


def rows() -> list[tuple[str, str, str]]:
    """Return each code with its statuses and its title."""
    found: dict[str, tuple[set[str], str]] = {}
    for _, tree in modules():
        for call in calls(tree):
            match call:
                case ast.Call(
                    args=[status, ast.Constant(value=str(code)), ast.Constant(value=str(title)), *_]
                ) if name_of(call) == "Problem":
                    statuses, _ = found.setdefault(code, (set(), title))
                    statuses |= _statuses(status)
    return [(code, " ".join(sorted(found[code][0])), found[code][1]) for code in sorted(found)]


def _statuses(status: ast.expr) -> set[str]:
    match status:
        case ast.Constant(value=int(number)):
            return {str(number)}
    return {"400", "408", "413", "415", "431"}  # Only `invalid_request` has more than one.


def block() -> str:
    """Return the table."""
    return table(
        ["code", "status", "title"],
        [(f"[`{code}`](#{code})", status, title) for code, status, title in rows()],
    )
