"""The clients file: would the broker take it, and does it do what it seems to?"""

from pathlib import Path

from broker.callers.clients_file import ClientsFileError
from broker.callers.concerns import find_concerns
from broker.callers.registry import read_clients
from broker.doctor.findings import Finding, Report

_SHOWN = 10


def check_clients(path: Path, allowed_scopes: tuple[str, ...]) -> list[Finding]:
    """Read the file as the broker does."""
    report = Report("clients file")
    try:
        clients = read_clients(path)
    except ClientsFileError as error:
        for problem in error.problems[:_SHOWN]:
            report.fail(problem, f"correct it in {path} (`broker clients check`)")
        more = len(error.problems) - _SHOWN
        if more > 0:
            report.fail(f"{more} more problems", f"broker clients check {path}")
        return report.findings
    for concern in find_concerns(clients, allowed_scopes):
        report.warn(concern, f"change it in {path}; a running broker notices by itself")
    number = len(clients.callers)
    many = "1 caller" if number == 1 else f"{number} callers"
    return report.ok(f"{path}, {many}").findings
