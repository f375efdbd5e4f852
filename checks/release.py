"""Rejects a tag that its release is not ready for; prints the release's notes if it is.

A tag `v0.2.0` needs: the version 0.2.0 wherever a file names the current one; and in CHANGELOG.md a
section `## [0.2.0] - 2026-12-01` with an entry, above all older ones, with its link at the foot.
The release workflow runs this first; `docs/how-to/release.md` has the other steps.
"""

import argparse
import datetime
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]
_TAG = re.compile(r"v(?P<version>(?:0|[1-9][0-9]*)(?:\.(?:0|[1-9][0-9]*)){2})")
_HEADING = re.compile(r"^## \[(?P<version>[^\]]+)\](?P<rest>.*)$", re.MULTILINE)
_LINK = re.compile(r"^\[[^\]]+\]: ", re.MULTILINE)
_VERSION = r"(\d+\.\d+\.\d+)"
_PLACES: Mapping[str, Sequence[str]] = {
    "broker/__init__.py": (rf'^__version__ = "{_VERSION}"$',),
    "openapi.yaml": (rf"^  version: {_VERSION}$",),
    "helm/Chart.yaml": (rf"^version: {_VERSION}$", rf'^appVersion: "?{_VERSION}"?$'),
    "README.md": (rf"^\*\*{_VERSION}\*\*",),
}
"""The patterns by which each file names the version; each occurs, and always with this version."""
_EXAMPLE = re.compile(
    rf"\btoken-broker(?:-drill)?(?::| --version ){_VERSION}|\?ref=v{_VERSION}", re.MULTILINE
)
"""Examples in documents and Compose that name an image, a chart or a Terraform module."""
_WITH_EXAMPLES = ("README.md", "compose.yaml", "docs", "deploy", "helm")
_MADE_UP = {"1.2.3"}
"""The example in docs/how-to/release.md, for any version."""
_ENTRY = re.compile(r"^- \S", re.MULTILINE)
_RELATIVE = re.compile(r"(?<=\]\()(?![a-z][a-z0-9+.-]*:)(?P<target>[^)\s]+)(?=\))")


def shortcomings(tag: str, root: Path = _ROOT) -> list[str]:
    """Return the reasons against releasing the tag, a line each."""
    match = _TAG.fullmatch(tag)
    if match is None:
        return [f"{tag!r} is no release's tag: those are like v1.2.3"]
    version = match["version"]
    changelog = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    return [*_other_versions(version, root), *_lacks_of_changelog(version, changelog)]


def _other_versions(version: str, root: Path) -> Iterator[str]:
    for path, patterns in _PLACES.items():
        if not (root / path).exists():
            yield f"{path} is missing"
            continue
        text = (root / path).read_text(encoding="utf-8")
        named = [re.findall(pattern, text, re.MULTILINE) for pattern in patterns]
        if not all(named):
            yield f"{path} names no version"
        yield from _stale(path, {each for found in named for each in found}, version)
    for file in _files_with_examples(root):
        examples = _EXAMPLE.finditer(file.read_text(encoding="utf-8", errors="replace"))
        named_there = {match[1] or match[2] for match in examples} - _MADE_UP
        yield from _stale(str(file.relative_to(root)), named_there, version)


def _stale(path: str, named: set[str], version: str) -> Iterator[str]:
    for each in sorted(named - {version}):
        yield f"{path} says {each}, not {version}"


def _files_with_examples(root: Path) -> Iterator[Path]:
    for name in _WITH_EXAMPLES:
        paths = [root / name, *sorted((root / name).rglob("*"))]
        yield from (path for path in paths if path.is_file())


def _lacks_of_changelog(version: str, changelog: str) -> Iterator[str]:
    headings = list(_HEADING.finditer(changelog))
    released = [heading["version"] for heading in headings if heading["version"] != "Unreleased"]
    if version not in released:
        yield f"CHANGELOG.md has no section ## [{version}]"
        return
    if released[0] != version:
        yield f"CHANGELOG.md: the newest section is {released[0]}, not {version}"
    heading = next(each for each in headings if each["version"] == version)
    if not _is_date(heading["rest"]):
        yield f"CHANGELOG.md: ## [{version}] needs its date, such as ## [{version}] - 2026-12-01"
    if not _ENTRY.search(notes(version, changelog)):
        yield f"CHANGELOG.md: the section {version} has no entry"
    if not re.search(rf"^\[{re.escape(version)}\]: \S", changelog, re.MULTILINE):
        yield f"CHANGELOG.md has no link [{version}]: … at its foot"


def _is_date(rest: str) -> bool:
    match = re.fullmatch(r" - (\d{4}-\d{2}-\d{2})", rest)
    if match is None:
        return False
    try:
        datetime.date.fromisoformat(match[1])
    except ValueError:
        return False
    return True


def notes(version: str, changelog: str) -> str:
    """Return the section of a version without its heading; empty if there is none."""
    headings = list(_HEADING.finditer(changelog))
    for number, heading in enumerate(headings):
        if heading["version"] == version:
            following = headings[number + 1 :]
            end = following[0].start() if following else len(changelog)
            text = changelog[heading.end() : end]
            foot = _LINK.search(text)
            return (text[: foot.start()] if foot else text).strip()
    return ""


def with_absolute_links(text: str, source: str) -> str:
    """Make links absolute: those relative to CHANGELOG.md would break on the release's page.

    `source` is the address of the project's files at the tag, such as
    `https://github.com/OWNER/REPOSITORY/blob/v0.2.0`.
    """

    def absolute(match: re.Match[str]) -> str:
        target = match["target"]
        path = f"CHANGELOG.md{target}" if target.startswith("#") else target
        return f"{source.rstrip('/')}/{path}"

    return _RELATIVE.sub(absolute, text)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m checks.release", description=__doc__)
    parser.add_argument("tag", help="such as v0.2.0")
    parser.add_argument(
        "--source",
        metavar="URL",
        help="the address of the tag's files, for relative links of the notes",
    )
    given = parser.parse_args(arguments)
    lacks = shortcomings(given.tag)
    if lacks:
        sys.stderr.write("".join(f"{line}\n" for line in (f"{given.tag} is not ready:", *lacks)))
        return 1
    changelog = (_ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    text = notes(given.tag.removeprefix("v"), changelog)
    sys.stdout.write((with_absolute_links(text, given.source) if given.source else text) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
