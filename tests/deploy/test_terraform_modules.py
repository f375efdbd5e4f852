"""Rules for each Terraform module, also without Terraform."""

import re
from pathlib import Path
from typing import Any

import hcl2
import pytest

from tests.support.terraform import MODULES, Workspace

NAMES = sorted(folder.name for folder in MODULES.iterdir() if folder.is_dir())


def each_module() -> pytest.MarkDecorator:
    return pytest.mark.parametrize("module", NAMES)


def _blocks(module: str, kind: str) -> dict[str, dict[str, Any]]:
    """Return the blocks of one kind in all of a module's files, by their label."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted((MODULES / module).glob("*.tf")):
        with path.open(encoding="utf-8") as file:
            for block in hcl2.load(file).get(kind, []):
                found.update({label.strip('"'): body for label, body in block.items()})
    return found


def test_there_is_a_module_for_each_secret_store() -> None:
    assert NAMES == ["aws", "vault"]


@pytest.mark.parametrize("path", sorted(MODULES.rglob("*.hcl")), ids=lambda path: path.parent.name)
def test_module_tests_parse(path: Path) -> None:
    with path.open(encoding="utf-8") as file:
        assert hcl2.load(file)["run"]


@each_module()
def test_every_variable_is_described_typed_and_documented(module: str) -> None:
    text = (MODULES / module / "README.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE))
    variables, outputs = _blocks(module, "variable"), _blocks(module, "output")
    for name, block in {**variables, **outputs}.items():
        assert block.get("description"), name
    assert all("type" in block for block in variables.values())
    assert documented == {*variables, *outputs}


@each_module()
def test_the_client_is_write_only_and_in_no_state(module: str) -> None:
    client = _blocks(module, "variable")["client"]
    assert (client["ephemeral"], client["sensitive"]) == (True, True)
    for path in (MODULES / module).glob("*.tf"):
        uses = re.findall(r"^.*\bvar\.client\b.*$", path.read_text(encoding="utf-8"), re.MULTILINE)
        for use in uses:
            assert re.search(r"_wo\s*=|condition\s*=", use), use


@each_module()
def test_module_is_formatted_as_terraform_does(module: str, tmp_path: Path) -> None:
    workspace = Workspace.new(tmp_path)
    assert workspace.succeed("fmt", "-check", "-recursive", str(MODULES / module)) == ""
