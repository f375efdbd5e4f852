import re
import subprocess
import sys
from pathlib import Path

import pytest

from broker import __version__
from checks.release import notes, shortcomings, with_absolute_links
from tests.docs.documents import ROOT, links

_CHANGELOG = """# Changes

## [Unreleased]

## [0.2.0] - 2026-12-01

### Added

- A thing.

## [0.1.0]

- The first.

[Unreleased]: CHANGELOG.md#unreleased
[0.2.0]: CHANGELOG.md#020---2026-12-01
[0.1.0]: CHANGELOG.md#010
"""


_FILES = {
    "broker/__init__.py": '"""The broker."""\n\n__version__ = "0.2.0"\n',
    "openapi.yaml": "openapi: 3.1.0\ninfo:\n  title: t\n  version: 0.2.0\n",
    "helm/Chart.yaml": 'apiVersion: v2\nversion: 0.2.0\nappVersion: "0.2.0"\n',
    "compose.yaml": "x-broker:\n  image: ${BROKER_IMAGE:-token-broker:0.2.0}\n",
    "deploy/terraform/aws/README.md": 'source = "git::https://h/b.git//aws?ref=v0.2.0"\n',
    "deploy/terraform/vault/README.md": 'source = "git::https://h/b.git//vault?ref=v0.2.0"\n',
    "docs/how-to/build-the-image.md": "`token-broker:0.2.0 migrate`\n    token-broker:0.2.0\n",
    "docs/how-to/deploy-kubernetes.md": (
        "helm install token-broker oci://h/token-broker --version 0.2.0\n"
        "make drill-image DRILL_IMAGE=h/token-broker-drill:0.2.0\n"
    ),
    "docs/how-to/release.md": "The chart is `h/charts/token-broker:1.2.3`.\n",
    "README.md": "## Status\n\n**0.2.0** is prepared; 0.1.0 was the first release.\n",
    "CHANGELOG.md": _CHANGELOG,
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A project that is ready for release 0.2.0."""
    for name, text in _FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        _write(tmp_path, name, text)
    return tmp_path


def _write(root: Path, name: str, text: str) -> None:
    (root / name).write_text(text, encoding="utf-8")


def test_a_release_that_is_ready_has_no_shortcomings(tree: Path) -> None:
    assert shortcomings("v0.2.0", tree) == []


@pytest.mark.parametrize("tag", ["0.2.0", "v0.2", "v0.2.0-rc1", "v00.2.0", "v0.2.0\n", ""])
def test_a_tag_that_is_not_of_a_release_is_refused(tree: Path, tag: str) -> None:
    (line,) = shortcomings(tag, tree)
    assert "no release's tag" in line


def test_a_tag_without_its_section_is_refused(tree: Path) -> None:
    _write(tree, "CHANGELOG.md", _CHANGELOG.replace("## [0.2.0] - 2026-12-01\n", ""))
    assert shortcomings("v0.2.0", tree) == ["CHANGELOG.md has no section ## [0.2.0]"]


def test_a_tag_of_another_version_is_refused(tree: Path) -> None:
    assert shortcomings("v0.1.0", tree) == [
        "broker/__init__.py says 0.2.0, not 0.1.0",
        "openapi.yaml says 0.2.0, not 0.1.0",
        "helm/Chart.yaml says 0.2.0, not 0.1.0",
        "README.md says 0.2.0, not 0.1.0",
        "compose.yaml says 0.2.0, not 0.1.0",
        "docs/how-to/build-the-image.md says 0.2.0, not 0.1.0",
        "docs/how-to/deploy-kubernetes.md says 0.2.0, not 0.1.0",
        "deploy/terraform/aws/README.md says 0.2.0, not 0.1.0",
        "deploy/terraform/vault/README.md says 0.2.0, not 0.1.0",
        "CHANGELOG.md: the newest section is 0.2.0, not 0.1.0",
        "CHANGELOG.md: ## [0.1.0] needs its date, such as ## [0.1.0] - 2026-12-01",
    ]


_STALE = [
    (name, f"{text[: mention.start()]}0.1.9{text[mention.end() :]}")
    for name, text in _FILES.items()
    if name != "CHANGELOG.md"
    for mention in re.finditer(r"0\.2\.0", text)
]
"""Each file, with one of its mentions of the version left at the last release."""


@pytest.mark.parametrize(("name", "text"), _STALE)
def test_a_stale_version_is_refused_in_every_file(tree: Path, name: str, text: str) -> None:
    _write(tree, name, text)
    assert shortcomings("v0.2.0", tree) == [f"{name} says 0.1.9, not 0.2.0"]


def test_this_project_names_one_version() -> None:
    lines = [line for line in shortcomings(f"v{__version__}") if "CHANGELOG.md" not in line]
    assert lines == []


def test_a_file_without_a_version_is_named(tree: Path) -> None:
    _write(tree, "helm/Chart.yaml", "version: 0.2.0\n")
    (tree / "openapi.yaml").unlink()
    assert shortcomings("v0.2.0", tree) == [
        "openapi.yaml is missing",
        "helm/Chart.yaml names no version",
    ]


@pytest.mark.parametrize("rest", ["", " - soon", " - 2026-13-01"])
def test_a_section_without_a_date_is_refused(tree: Path, rest: str) -> None:
    _write(tree, "CHANGELOG.md", _CHANGELOG.replace(" - 2026-12-01\n", f"{rest}\n", 1))
    assert shortcomings("v0.2.0", tree) == [
        "CHANGELOG.md: ## [0.2.0] needs its date, such as ## [0.2.0] - 2026-12-01"
    ]


def test_an_empty_section_is_refused(tree: Path) -> None:
    _write(tree, "CHANGELOG.md", _CHANGELOG.replace("- A thing.\n", ""))
    assert shortcomings("v0.2.0", tree) == ["CHANGELOG.md: the section 0.2.0 has no entry"]


def test_a_section_without_a_link_is_refused(tree: Path) -> None:
    _write(tree, "CHANGELOG.md", _CHANGELOG.replace("[0.2.0]: ", "[other]: "))
    assert shortcomings("v0.2.0", tree) == ["CHANGELOG.md has no link [0.2.0]: … at its foot"]


def test_the_notes_are_only_the_section() -> None:
    assert notes("0.2.0", _CHANGELOG) == "### Added\n\n- A thing."
    assert notes("0.1.0", _CHANGELOG) == "- The first."
    assert notes("9.9.9", _CHANGELOG) == ""


def test_links_of_the_notes_lead_to_the_tags_files() -> None:
    text = "[a](docs/how-to/upgrade.md) [b](https://h/x) [c](#010) [d](mailto:a@b)"
    source = "https://github.com/o/r/blob/v0.2.0"
    assert with_absolute_links(text, f"{source}/") == (
        f"[a]({source}/docs/how-to/upgrade.md) [b](https://h/x) [c]({source}/CHANGELOG.md#010) "
        f"[d](mailto:a@b)"
    )


def test_no_link_of_the_changelog_stays_relative() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    relative = [target for target in links(text) if not target.startswith("https://")]
    assert relative
    absolute = links(with_absolute_links(text, "https://h/v1"))
    assert [target for target in absolute if not target.startswith("https://")] == []
    assert {f"https://h/v1/{target}" for target in relative} <= set(absolute)


def test_the_command_exits_with_1_and_prints_the_reason_on_stderr() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "checks.release", "v99.0.0"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (result.returncode, result.stdout) == (1, "")
    lines = result.stderr.splitlines()
    assert lines[0] == "v99.0.0 is not ready:"
    assert f"broker/__init__.py says {__version__}, not 99.0.0" in lines
    assert "CHANGELOG.md has no section ## [99.0.0]" in lines
