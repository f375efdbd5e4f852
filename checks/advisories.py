"""Holds every locked package against the published advisories, by way of pip-audit.

Ends with 1 when one is known to be vulnerable. Where the advisories can't be reached it says so and
ends with 0, so that a check works without a network; `--required` makes an error of that, too.
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
    """What an audit of one lock file told."""

    vulnerable: tuple[str, ...] = ()
    """One line each, fit to be shown."""
    unaudited: tuple[str, ...] = ()
    """Packages that the advisory service said nothing about."""
    outage: str | None = None
    """Why there was no audit at all."""


def read_report(text: str) -> Findings:
    """What a JSON report of pip-audit says. Raises `ValueError` if it is none."""
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
    """Ask the advisory service about everything in a lock file."""
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
        lines = process.stderr.strip().splitlines() or ["pip-audit said nothing"]
        return Findings(outage=lines[-1][:200])


def verdict(lock: str, findings: Findings, *, is_required: bool) -> tuple[int, list[str]]:
    """The exit status, and what to tell."""
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
        "--required", action="store_true", help="fail where the advisories can't be reached"
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
