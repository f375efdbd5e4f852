"""Compares every locked package with the published advisories, with pip-audit.

Exits with 1 if one is known to be vulnerable. Without a connection it says so and exits with 0, so
that a check works without a network; with `--required` it exits with 1.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

_LIMIT_SECONDS = 300


@dataclass(frozen=True, slots=True)
class Findings:
    """The result of the audit of one lock file."""

    vulnerable: tuple[str, ...] = ()
    """A line for each vulnerability."""
    unaudited: tuple[str, ...] = ()
    """Packages that the advisory service does not know."""
    outage: str | None = None
    """Why there was no audit."""


def read_report(text: str) -> Findings:
    """Read a JSON report of pip-audit. Raises `ValueError` if it is none."""
    document = json.loads(text)
    if not isinstance(document, dict) or not isinstance(document.get("dependencies"), list):
        raise ValueError("not a report of pip-audit")  # noqa: TRY004  (as json says it)
    packages = document["dependencies"]
    return Findings(
        vulnerable=tuple(line for package in packages for line in _vulnerabilities(package)),
        unaudited=tuple(package["name"] for package in packages if "skip_reason" in package),
    )


def _vulnerabilities(package: dict[str, Any]) -> Iterator[str]:
    for found in package.get("vulns", ()):
        fixed = ", ".join(found.get("fix_versions") or ["no release yet"])
        yield f"{package['name']} {package['version']}: {found['id']} (fixed in {fixed})"


def audit(lock: str) -> Findings:
    """Audit everything in a lock file."""
    process = subprocess.run(  # noqa: S603  (our own arguments)
        (
            *(sys.executable, "-m", "pip_audit", "--requirement", lock),
            # The lock is complete and hashed: nothing is resolved, downloaded or run.
            *("--disable-pip", "--require-hashes", "--format", "json", "--progress-spinner", "off"),
        ),
        capture_output=True,
        text=True,
        timeout=_LIMIT_SECONDS,
        check=False,
    )
    try:
        return read_report(process.stdout)
    except ValueError:
        lines = process.stderr.strip().splitlines() or ["pip-audit printed nothing"]
        return Findings(outage=lines[-1][:200])


def verdict(lock: str, findings: Findings, *, is_required: bool) -> tuple[int, list[str]]:
    """Return the exit status, and the lines to print."""
    if findings.vulnerable:
        return 1, [f"{lock}: known to be vulnerable:", *(f"  {x}" for x in findings.vulnerable)]
    status = 1 if is_required else 0
    if findings.outage is not None:
        return status, [f"{lock}: NOT AUDITED, no advisories: {findings.outage}"]
    if findings.unaudited:
        count = len(findings.unaudited)
        return status, [
            f"{lock}: NOT AUDITED: the advisory service knows nothing of {count} packages"
        ]
    return 0, [f"{lock}: nothing known against any package"]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m checks.advisories", description=__doc__)
    parser.add_argument("locks", nargs="+", metavar="LOCK", help="a hashed requirements file")
    parser.add_argument(
        "--required", action="store_true", help="fail if the advisories cannot be reached"
    )
    chosen = parser.parse_args(arguments)
    worst = 0
    for lock in chosen.locks:
        status, lines = verdict(lock, audit(lock), is_required=chosen.required)
        worst = max(worst, status)
        sys.stdout.write("\n".join(lines) + "\n")
    return worst


if __name__ == "__main__":
    sys.exit(main())
