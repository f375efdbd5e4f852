"""`python -m checks.reference` rewrites what is generated; `--check` only says what is stale."""

import argparse
import sys
from collections.abc import Callable, Mapping

from checks.reference import (
    api,
    audit_actions,
    command_line,
    decisions,
    figures,
    imports,
    log_events,
    metrics,
    problems,
    security_checks,
    settings,
)
from checks.reference.sources import ROOT
from checks.reference.tables import MalformedPageError, with_block

PAGES: Mapping[str, Callable[[str], str]] = {
    "docs/reference/api.md": lambda _: api.page(),
    "docs/reference/settings.md": settings.fill,
    "docs/reference/cli.md": lambda _: command_line.page(),
    "docs/reference/metrics.md": lambda page: with_block(page, "metrics", metrics.block()),
    "docs/reference/logs.md": lambda page: with_block(page, "events", log_events.block()),
    "docs/reference/problems.md": lambda page: with_block(page, "problems", problems.block()),
    "docs/reference/audit-trail.md": audit_actions.fill,
    "docs/reference/limits.md": figures.fill,
    "docs/reference/security-checks.md": security_checks.fill,
    "docs/explanation/architecture.md": imports.fill,
    "docs/decisions/README.md": lambda page: with_block(page, "decisions", decisions.block()),
}
"""How each page is made from what it is now."""


def main() -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m checks.reference", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 if stale")
    only_check = parser.parse_args().check
    stale = []
    for name, made in PAGES.items():
        path = ROOT / name
        current = path.read_text(encoding="utf-8") if path.exists() else ""
        try:
            new = made(current)
        except (MalformedPageError, ImportError, AttributeError, SyntaxError) as error:
            sys.stderr.write(f"{name}: {error}\n")
            stale.append(name)
            continue
        if new != current:
            stale.append(name)
            if not only_check:
                path.write_text(new, encoding="utf-8")
    if not only_check:
        sys.stdout.write("".join(f"{name}\n" for name in stale) or "Nothing changed.\n")
        return 0
    for name in stale:
        sys.stdout.write(f"{name} is not current: run python -m checks.reference\n")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
