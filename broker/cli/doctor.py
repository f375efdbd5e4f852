"""`broker doctor`: checks each part, and says how to fix what is wrong."""

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict

import click

from broker.clock import SystemClock
from broker.doctor.examination import examine
from broker.doctor.findings import Finding, Verdict, is_well

_COLOURS = {
    Verdict.OK: "green",
    Verdict.WARNING: "yellow",
    Verdict.SKIPPED: "bright_black",
    Verdict.FAILED: "red",
}


@click.command(short_help="Check each part, and say how to fix what is wrong.")
@click.option("--json", "is_json", is_flag=True, help="Print one JSON object.")
def doctor(*, is_json: bool) -> None:
    """Check each part of this installation, and say how to fix what is wrong.

    \b
    It checks, with the settings that `broker serve` would use:
      settings       all are complete and well-formed
      database       reachable, writable, with this release's schema
      failover       no commits were lost, and none will be
      sealing keys   SECRET_KEY opens the stored secrets
      secret source  the OAuth client can be read (its secret is never shown)
      google         the discovery document and its endpoints
      redirect URI   it leads to the public listener
      clock          it agrees with Google's and PostgreSQL's
      callers file   it is valid, and everything in it has an effect
      issuers        their keys can be fetched

    \b
    Each line begins with ok, warn, skip or FAIL; the next line says what to do.
    It changes nothing, takes at most six seconds, and exits with 1 after a FAIL.
    """
    asyncio.run(_run(is_json=is_json))


async def _run(*, is_json: bool) -> None:
    findings = await examine(os.environ, SystemClock())
    click.echo(_as_json(findings) if is_json else _as_text(findings))
    if not is_well(findings):
        sys.exit(1)


def _as_json(findings: Sequence[Finding]) -> str:
    document = {
        "well": is_well(findings),
        "findings": [
            {**asdict(finding), "verdict": finding.verdict.lower()} for finding in findings
        ],
    }
    return json.dumps(document, indent=2, ensure_ascii=False)


def _as_text(findings: Sequence[Finding]) -> str:
    # https://no-color.org: colours are off if the variable is set and not empty.
    in_colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    lines: list[str] = []
    for finding in findings:
        word = finding.verdict.ljust(4)
        if in_colour:
            word = click.style(word, fg=_COLOURS[finding.verdict], bold=True)
        lines.append(f"{word}  {finding.part}: {finding.what}")
        if finding.remedy is not None:
            lines.append(f"      → {finding.remedy}")
    return "\n".join(lines)
