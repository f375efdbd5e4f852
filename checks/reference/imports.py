"""The import diagram and the table of packages, from the layers and the imports."""

import ast
import re

from checks.reference.sources import ROOT, modules
from checks.reference.tables import cells, ticked, with_block, with_column

_LAYERS = re.compile(r"^```layers\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
_COLUMNS = 3


def layers(page: str) -> list[list[str]]:
    """Return the packages of each line of the list, the highest first."""
    match = _LAYERS.search(page)
    return [line.split() for line in match["text"].splitlines()] if match else []


def fill(page: str) -> str:
    """Return the page with its diagram, and with the imports of each package."""
    page = with_block(page, "imports", f"```mermaid\n{_diagram(layers(page))}\n```")
    found = direct_imports()
    order = [name for line in layers(page) for name in line]

    def imports_of(row: list[str]) -> str:
        names = {other for name in ticked(row[0]) for other in found.get(name, ())}
        return " ".join(sorted(names - set(ticked(row[0])), key=order.index))

    before, rest = page.split("\n## Packages\n")
    table, *after = re.split(r"(?=\n## )", rest)
    return f"{before}\n## Packages\n{with_column(table, 2, imports_of, columns=_COLUMNS)}" + (
        "".join(after)
    )


def _diagram(lines: list[list[str]]) -> str:
    boxes = [f"    L{number}[{', '.join(line)}]" for number, line in enumerate(lines)]
    arrows = [f"    L{number} --> L{number + 1}" for number in range(len(lines) - 1)]
    return "\n".join(["flowchart TB", *boxes, *arrows])


def direct_imports() -> dict[str, set[str]]:
    """Return, for each package, the packages that it imports."""
    found: dict[str, set[str]] = {}
    for module, tree in modules():
        package = module.removeprefix("broker/").removesuffix(".py").split("/")[0]
        for node in ast.walk(tree):
            for name in _imported(node):
                if name != package:
                    found.setdefault(package, set()).add(name)
    return found


def _imported(node: ast.AST) -> list[str]:
    """Return the packages of the product that a statement imports."""
    match node:
        case ast.ImportFrom(module="broker", names=names):
            return [alias.name for alias in names if (ROOT / "broker" / alias.name).is_dir()]
        case ast.ImportFrom(module=str(module)) if module.startswith("broker."):
            return [module.split(".")[1]]
        case ast.Import(names=names):
            return [alias.name.split(".")[1] for alias in names if alias.name.startswith("broker.")]
    return []


__all__ = ["cells", "direct_imports", "fill", "layers"]
