"""The result of a check: the state of a part, and how to fix it."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """The state of a part. Only `FAILED` makes the whole examination fail."""

    OK = "ok"
    WARNING = "warn"
    SKIPPED = "skip"
    FAILED = "FAIL"


@dataclass(frozen=True, slots=True)
class Finding:
    """One fact about one part; neither text holds a secret."""

    verdict: Verdict
    part: str
    what: str
    remedy: str | None = None
    """How to fix it; set for every warning and failure."""


class Report:
    """Collects the findings about one part."""

    def __init__(self, part: str) -> None:
        self._part = part
        self.findings: list[Finding] = []

    def ok(self, what: str) -> "Report":
        return self._add(Verdict.OK, what, None)

    def warn(self, what: str, remedy: str) -> "Report":
        return self._add(Verdict.WARNING, what, remedy)

    def fail(self, what: str, remedy: str) -> "Report":
        return self._add(Verdict.FAILED, what, remedy)

    def skip(self, why: str) -> "Report":
        """Add that the part cannot be checked, because of something that is reported elsewhere."""
        return self._add(Verdict.SKIPPED, f"skipped: {why}", None)

    def _add(self, verdict: Verdict, what: str, remedy: str | None) -> "Report":
        self.findings.append(Finding(verdict, self._part, what, remedy))
        return self


def is_well(findings: Iterable[Finding]) -> bool:
    """True if no check failed."""
    return all(finding.verdict is not Verdict.FAILED for finding in findings)
