"""What the documents say is so: links lead somewhere, commands exist, names are the code's."""

import ast
import re
from pathlib import Path

import click
import pytest
import yaml

from broker import __version__
from broker.callers.model import Permission
from broker.cli import main
from broker.settings import SECRET_NAMES, SETTING_NAMES
from tests.docs.documents import (
    DOCUMENTS,
    ROOT,
    anchors,
    blocks,
    links,
    rows,
    section,
    text_of,
    ticked,
)

_READERS = {"text", "secret", "secret_now", "_listen", "_database_address"}


def each_document() -> pytest.MarkDecorator:
    return pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)


@each_document()
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    for target in links(document.read_text(encoding="utf-8")):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        found = document.parent / path if path else document
        assert found.exists(), target
        if anchor and found.suffix == ".md":
            assert anchor in anchors(found.read_text(encoding="utf-8")), target


@each_document()
def test_make_targets_exist(document: Path) -> None:
    makefile = text_of("Makefile")
    text = document.read_text(encoding="utf-8")
    named = set(re.findall(r"(?:`|^)make ([a-z]+)", text, re.MULTILINE))
    for target in named:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"make {target}"


def commands_of(group: click.Group) -> dict[str, click.Command]:
    """By name, also where a group imports each only when it is asked for."""
    context = click.Context(group)
    found = {name: group.get_command(context, name) for name in group.list_commands(context)}
    return {name: command for name, command in found.items() if command is not None}


@each_document()
def test_broker_commands_exist(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    for words in re.findall(r"(?:`|^)broker ((?:[a-z]+ ?)+)", text, re.MULTILINE):
        command: click.Command = main
        for word in words.split():
            if isinstance(command, click.Group):
                commands = commands_of(command)
                assert word in commands, f"broker {words}"
                command = commands[word]


def test_the_readme_names_every_command() -> None:
    readme = text_of("README.md")
    for name, command in commands_of(main).items():
        names = list(commands_of(command)) if isinstance(command, click.Group) else [""]
        for part in names:
            assert f"`broker {f'{name} {part}'.strip()}`" in readme


def test_every_document_is_found_from_the_readme_or_the_list_of_documents() -> None:
    from_readme = _linked_from(ROOT / "README.md")
    assert ROOT / "docs/README.md" in from_readme
    found = from_readme | _linked_from(ROOT / "docs/README.md")
    assert set(DOCUMENTS) - found == {ROOT / "README.md"}


def test_the_list_of_documents_has_every_page_below_it() -> None:
    pages = set((ROOT / "docs").rglob("*.md")) - {ROOT / "docs/README.md"}
    assert pages - _linked_from(ROOT / "docs/README.md") == set()


def _linked_from(document: Path) -> set[Path]:
    targets = links(document.read_text(encoding="utf-8"))
    return {(document.parent / target.partition("#")[0]).resolve() for target in targets}


def test_decisions_have_one_form_and_are_short() -> None:
    decisions = sorted((ROOT / "docs/decisions").glob("*.md"))
    assert decisions
    for path in decisions:
        text = path.read_text(encoding="utf-8")
        assert re.search(r"^\d{4}-\d{2}-\d{2}$", text, re.MULTILINE), path.name
        headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
        assert headings == ["Context", "Decision", "Alternatives", "Consequences"], path.name
        assert "\nHow to check: " in text, path.name
        assert len(text.splitlines()) <= 40, path.name


def test_the_configuration_lists_the_settings_that_are_read_and_no_others() -> None:
    listed = [
        ticked(row[0])[0]
        for row in rows(text_of("docs/configuration.md"))
        if re.fullmatch(r"`[A-Z][A-Z0-9_]+`", row[0])
    ]
    assert len(listed) == len(set(listed))
    assert set(listed) == _settings_read()
    assert set(listed) == SETTING_NAMES


def test_the_configuration_marks_what_may_come_from_a_file() -> None:
    marked = {
        ticked(row[0])[0]
        for row in rows(text_of("docs/configuration.md"))
        if len(row) == 3 and row[2].startswith("*Secret.*")
    }
    assert marked == SECRET_NAMES


def _settings_read() -> set[str]:
    """Every name that the settings ask the environment for."""
    sources = sorted((ROOT / "broker" / "settings").glob("*.py"))
    names = {
        node.args[0].value
        for source in sources
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in _READERS
        and node.args
        and isinstance(node.args[0], ast.Constant)
    }
    files = {f"{name}_FILE" for name in SECRET_NAMES}
    return {str(name) for name in names} - files


def test_the_callers_file_shown_is_one() -> None:
    shown = yaml.safe_load(blocks(text_of("docs/configuration.md"), "yaml")[0])
    assert set(shown["callers"]["calendar-sync"]["can"]) == set(Permission)


def test_operations_lists_every_metric_with_its_labels_and_no_others() -> None:
    listed = {
        ticked(row[0])[0]: set(ticked(row[1]))
        for row in rows(section(text_of("docs/operations.md"), "## Metrics"))
        if row[0].startswith("`broker_")
    }
    assert listed == _metrics()


def _metrics() -> dict[str, set[str]]:
    """Each metric's name and labels, as broker/telemetry/metrics.py makes it."""
    found: dict[str, set[str]] = {}
    for node in ast.walk(ast.parse(text_of("broker/telemetry/metrics.py"))):
        if isinstance(node, ast.Call) and len(node.args) > 1:
            name, _, *labels = map(ast.literal_eval, node.args)
            found[name] = set(*labels)
    return found


def test_operations_lists_every_action_of_the_audit_trail() -> None:
    trail = section(text_of("docs/operations.md"), "## Audit trail").split("\n### ")[0]
    listed = {ticked(row[0])[0] for row in rows(trail)}
    recorded, said = _actions()
    assert recorded <= listed <= said


def _actions() -> tuple[set[str], set[str]]:
    """What the code passes as `action=`, and all that it says in quotes."""
    recorded: set[str] = set()
    said: set[str] = set()
    for path in (ROOT / "broker").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                said.add(node.value)
            elif isinstance(node, ast.keyword) and node.arg == "action":
                inner = ast.walk(node.value)
                recorded |= {str(c.value) for c in inner if isinstance(c, ast.Constant)}
    return {action for action in recorded if re.fullmatch("[a-z_]+", action)}, said


def test_alerts_and_outages_name_metrics_that_exist() -> None:
    named = re.findall(r"\bbroker_[a-z_]+", text_of("docs/operations.md"))
    assert set(named) <= set(_metrics())


def test_the_callers_guide_explains_every_problem() -> None:
    source = "".join(text_of(f"broker/web/{name}.py") for name in ("problems", "errors"))
    codes = {
        node.value
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and re.fullmatch(r"[a-z]+(_[a-z]+)*", node.value)
        and _is_code(node.value, source)
    }
    guide = section(text_of("docs/callers.md"), "## Problems")
    explained = {ticked(row[1])[0] for row in rows(guide) if row[0] != "status"}
    assert explained == codes


def _is_code(text: str, source: str) -> bool:
    return re.search(rf'Problem\(\s*[\w.]+,\s*"{text}"', source) is not None


def test_the_changelog_has_the_release_and_room_for_the_next() -> None:
    headings = re.findall(r"^## \[(.+?)\]", text_of("CHANGELOG.md"), re.MULTILINE)
    assert headings[0] == "Unreleased"
    newest = headings[1]
    if __version__ != newest:  # It is being prepared, and its section is made with its tag.
        assert _numbers(__version__) > _numbers(newest)
        assert re.search("^- ", section(text_of("CHANGELOG.md"), "## [Unreleased]"), re.MULTILINE)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in version.split("."))


def test_the_license_is_apache_2() -> None:
    assert text_of("LICENSE").split()[:4] == ["Apache", "License", "Version", "2.0,"]
