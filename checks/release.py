"""Refuses a tag that its release is not ready for; prints the release's notes if it is.

A tag `v0.2.0` needs: the version 0.2.0 in the program, in openapi.yaml and as the chart's
appVersion; and in CHANGELOG.md a section `## [0.2.0] - 2026-12-01` with something in it, the newest
of all, with its link at the foot. The release workflow runs this first; `docs/how-to/release.md`
tells the rest.
"""

import argparse
import datetime
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]
_TAG = re.compile(r"v(?P<version>(?:0|[1-9][0-9]*)(?:\.(?:0|[1-9][0-9]*)){2})")
_HEADING = re.compile(r"^## \[(?P<version>[^\]]+)\](?P<rest>.*)$", re.MULTILINE)
_LINK = re.compile(r"^\[[^\]]+\]: ", re.MULTILINE)
_PLACES = {
    "broker/__init__.py": r'^__version__ = "(.+)"$',
    "openapi.yaml": r"^  version: (\S+)$",
    "helm/Chart.yaml": r"^appVersion: \"?([^\s\"]+)\"?$",
}
"""Where the version stands, by file."""
_ENTRY = re.compile(r"^- \S", re.MULTILINE)


def shortcomings(tag: str, root: Path = _ROOT) -> list[str]:
    """Why the tag must not be released, a line each; none if it may."""
    match = _TAG.fullmatch(tag)
    if match is None:
        return [f"{tag!r} is no release's tag: those are like v1.2.3"]
    version = match["version"]
    changelog = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    return [*_other_versions(version, root), *_lacks_of_changelog(version, changelog)]


def _other_versions(version: str, root: Path) -> Iterator[str]:
    for path, pattern in _PLACES.items():
        if not (root / path).exists():
            yield f"{path} is missing"
            continue
        found = re.search(pattern, (root / path).read_text(encoding="utf-8"), re.MULTILINE)
        if found is None:
            yield f"{path} names no version"
        elif found[1] != version:
            yield f"{path} says {found[1]}, not {version}"


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
    """The section of a version without its heading; empty if there is none."""
    headings = list(_HEADING.finditer(changelog))
    for number, heading in enumerate(headings):
        if heading["version"] == version:
            following = headings[number + 1 :]
            end = following[0].start() if following else len(changelog)
            text = changelog[heading.end() : end]
            foot = _LINK.search(text)
            return (text[: foot.start()] if foot else text).strip()
    return ""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m checks.release", description=__doc__)
    parser.add_argument("tag", help="such as v0.2.0")
    tag = parser.parse_args(arguments).tag
    lacks = shortcomings(tag)
    if lacks:
        sys.stderr.write("".join(f"{line}\n" for line in (f"{tag} is not ready:", *lacks)))
        return 1
    changelog = (_ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    sys.stdout.write(notes(tag.removeprefix("v"), changelog) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
