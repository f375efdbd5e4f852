"""Parts get their collaborators at construction: nothing is wired by a later assignment."""

import ast
from collections.abc import Iterator

import pytest

from checks.reference.sources import modules

OF_UVICORN = "broker/server/"
"""uvicorn's request cycle has a callback that is assigned."""


def _assigned(tree: ast.AST) -> Iterator[ast.Attribute]:
    """Every attribute of another object than `self` or `cls` that is assigned."""
    for node in ast.walk(tree):
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AnnAssign | ast.AugAssign):
            targets = [node.target]
        for target in targets:
            for part in ast.walk(target):
                if isinstance(part, ast.Attribute) and isinstance(part.ctx, ast.Store):
                    owner = part.value
                    if not (isinstance(owner, ast.Name) and owner.id in {"self", "cls"}):
                        yield part


APP = [(module, tree) for module, tree in modules() if module.startswith("broker/app/")]


@pytest.mark.parametrize(("module", "tree"), APP, ids=[module for module, _ in APP])
def test_the_wiring_assigns_no_attribute(module: str, tree: ast.AST) -> None:
    # Starlette's router has no argument for it.
    allowed = {"redirect_slashes"} if module == "broker/app/listener_app.py" else set[str]()
    assert {each.attr for each in _assigned(tree)} == allowed


def test_no_observer_is_assigned() -> None:
    assigned = [
        f"{module}:{each.lineno} {each.attr}"
        for module, tree in modules()
        if not module.startswith(OF_UVICORN)
        for each in _assigned(tree)
        if each.attr.lstrip("_").startswith("on_")
    ]
    assert assigned == []


def test_an_assignment_would_be_found() -> None:
    source = "self.cache = 1\ncache.on_put = schedule.add\nleft, cache.right = 1, 2\n"
    assert [each.attr for each in _assigned(ast.parse(source))] == ["on_put", "right"]
