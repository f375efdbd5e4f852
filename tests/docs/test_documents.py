"""The documents are true: links lead somewhere, commands exist, names are the code's."""

import re
from pathlib import Path

import click
import pytest
import yaml

from broker import __version__
from broker.callers.model import Permission
from broker.cli import main
from broker.settings import SECRET_NAMES, SETTING_NAMES
from checks.reference import audit_actions, log_events, metrics, problems
from checks.reference.sources import modules, strings
from tests.docs.documents import (
    DOCUMENTS,
    ROOT,
    anchors,
    blocks,
    commands,
    links,
    rows,
    section,
    text_of,
    ticked,
)

LISTS = (
    ROOT / "docs/README.md",
    ROOT / "docs/decisions/README.md",
    ROOT / "docs/how-to/terraform.md",
)
METRICS = {name: set(labels) for name, _, labels, _ in metrics.rows()}
LOG_CALLS = log_events.log_calls()
OTHER_METRICS = {"broker_drill_"}
"""Metrics of `broker drill`."""


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
    for words in commands(text, "make"):
        target = words.split()[0]
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"make {target}"


def commands_of(group: click.Group) -> dict[str, click.Command]:
    """By name, also where a group imports each only when it is asked for."""
    context = click.Context(group)
    found = {name: group.get_command(context, name) for name in group.list_commands(context)}
    return {name: command for name, command in found.items() if command is not None}


@each_document()
def test_broker_commands_exist(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    for words in commands(text, "broker"):
        command: click.Command = main
        for word in words.split():
            if isinstance(command, click.Group):
                known = commands_of(command)
                assert word in known, f"broker {words}"
                command = known[word]


def test_the_command_reference_describes_every_command() -> None:
    described = re.findall(r"^##+ broker (.+)$", text_of("docs/reference/cli.md"), re.MULTILINE)
    expected = {
        f"{name} {part}".strip()
        for name, command in commands_of(main).items()
        for part in ["", *(commands_of(command) if isinstance(command, click.Group) else [])]
    }
    assert set(described) == expected


def test_every_document_is_found_from_the_readme_or_a_list_of_documents() -> None:
    from_readme = _linked_from(ROOT / "README.md")
    assert ROOT / "docs/README.md" in from_readme
    found = from_readme.union(*(_linked_from(each) for each in LISTS))
    assert set(DOCUMENTS) - found == {ROOT / "README.md"}


def test_the_lists_of_documents_have_every_page_below_docs() -> None:
    pages = set((ROOT / "docs").rglob("*.md")) - {ROOT / "docs/README.md"}
    assert pages - set().union(*(_linked_from(each) for each in LISTS)) == set()


def _linked_from(document: Path) -> set[Path]:
    targets = links(document.read_text(encoding="utf-8"))
    return {(document.parent / target.partition("#")[0]).resolve() for target in targets}


def test_decisions_have_one_form_and_are_short() -> None:
    decisions = sorted((ROOT / "docs/decisions").glob("[0-9]*.md"))
    assert decisions
    for path in decisions:
        text = path.read_text(encoding="utf-8")
        assert re.search(r"^\d{4}-\d{2}-\d{2}$", text, re.MULTILINE), path.name
        headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
        assert headings == ["Context", "Decision", "Alternatives", "Consequences"], path.name
        assert "\nHow to check: " in text, path.name
        assert len(text.splitlines()) <= 40, path.name


def test_the_settings_page_lists_the_settings_and_no_others() -> None:
    listed = [row[0].strip("`") for row in _settings()]
    assert len(listed) == len(set(listed))
    assert set(listed) == SETTING_NAMES


def test_the_settings_page_marks_what_may_come_from_a_file() -> None:
    assert {row[0].strip("`") for row in _settings() if row[2].startswith("*Secret.*")} == (
        SECRET_NAMES
    )


def _settings() -> list[list[str]]:
    page = rows(text_of("docs/reference/settings.md"))
    return [row for row in page if len(row) == 3 and re.fullmatch(r"`[A-Z][A-Z0-9_]+`", row[0])]


def test_the_callers_file_shown_is_one() -> None:
    shown = yaml.safe_load(blocks(text_of("docs/reference/callers-file.md"), "yaml")[0])
    assert set(shown["callers"]["calendar-sync"]["can"]) == set(Permission)


def test_the_metrics_page_lists_every_metric_with_its_labels_and_no_others() -> None:
    listed = {
        ticked(row[0])[0]: set(ticked(row[2]))
        for row in rows(text_of("docs/reference/metrics.md"))
        if len(row) == 4 and row[0].startswith("`broker_")
    }
    assert listed == METRICS


@each_document()
def test_metrics_that_are_named_exist(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    named = re.findall(r"`(broker_[a-z_]+)(?:\{[^}`]*\})?`", text)
    unknown = set(named) - set(METRICS)
    assert not [name for name in unknown if not name.startswith(tuple(OTHER_METRICS))]


def test_the_audit_page_lists_every_action() -> None:
    actions = section(text_of("docs/reference/audit-trail.md"), "## Actions").split("<!--")[0]
    listed = {ticked(row[0])[0] for row in rows(actions)}
    said = {text for _, tree in modules() for text in strings(tree)}
    assert set(audit_actions.recorded()) <= listed <= said


def test_every_problem_is_explained() -> None:
    page = section(text_of("docs/reference/problems.md"), "## Codes")
    explained = re.findall(r"^### `([a-z_]+)`$", page, re.MULTILINE)
    assert explained == [code for code, _, _ in problems.rows()]
    assert len(explained) > 10


def test_the_guide_for_refusals_names_every_problem() -> None:
    guide = section(text_of("docs/how-to/handle-refusals.md"), "## Who must act")
    named = {code for row in rows(guide) for code in ticked(row[1])}
    assert named == {code for code, _, _ in problems.rows()}


def test_every_call_of_a_logger_has_an_event() -> None:
    assert not [each for each in LOG_CALLS if not each.event]


@each_document()
def test_log_events_that_are_named_exist(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    named = re.findall(r"logs \| grep ([a-z_]+)|\bevent\s`([a-z_]+)`", text)
    assert {one or other for one, other in named} <= {each.event for each in LOG_CALLS}


def test_the_signs_of_each_outage_are_log_events_or_metrics() -> None:
    labels = set(ticked(text_of("docs/reference/metrics.md")))
    known = {each.event for each in LOG_CALLS} | set(METRICS) | labels
    signs = [row[3] for row in rows(text_of("docs/reference/outages.md")) if len(row) == 5]
    assert len(signs) > 15
    assert {name for cell in signs for name in ticked(cell)} - known == set()


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
