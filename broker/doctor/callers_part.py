"""The callers file: would the broker take it, and does it do what it seems to?"""

from pathlib import Path

from broker.callers.callers_file import CallersFileError
from broker.callers.concerns import find_concerns
from broker.callers.registry import read_callers
from broker.doctor.findings import Finding, Report

_SHOWN = 10


def check_callers(path: Path, allowed_scopes: tuple[str, ...]) -> list[Finding]:
    """Read the file as the broker does."""
    report = Report("callers file")
    try:
        file = read_callers(path)
    except CallersFileError as error:
        for problem in error.problems[:_SHOWN]:
            report.fail(problem, f"correct it in {path} (`broker callers check`)")
        more = len(error.problems) - _SHOWN
        if more > 0:
            report.fail(f"{more} more problems", f"broker callers check {path}")
        return report.findings
    for concern in find_concerns(file, allowed_scopes):
        report.warn(concern, f"change it in {path}; a running broker notices by itself")
    number = len(file.callers)
    many = "1 caller" if number == 1 else f"{number} callers"
    return report.ok(f"{path}, {many}").findings
