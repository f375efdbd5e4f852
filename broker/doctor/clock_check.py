"""This machine's clock, by which ID tokens, links and the lifetimes of tokens are judged."""

from datetime import timedelta

from broker.doctor.findings import Finding, Report

_WARNING = timedelta(seconds=5)
_FAILURE = timedelta(seconds=60)


def check_clock(google_ahead: timedelta | None, database_ahead: timedelta | None) -> list[Finding]:
    """Compare with other clocks: how far each is ahead of ours, None if it is not known."""
    report = Report("clock")
    if google_ahead is not None:
        _compare(report, "Google's", google_ahead)
    if database_ahead is not None:
        _compare(report, "PostgreSQL's", database_ahead)
    if not report.findings:
        report.skip("neither Google nor PostgreSQL reported its time")
    return report.findings


def _compare(report: Report, owner: str, ahead: timedelta) -> None:
    distance = abs(ahead)
    if distance <= _WARNING:
        report.ok(f"within {max(1, round(distance.total_seconds()))} s of {owner}")
        return
    direction = "behind" if ahead > timedelta(0) else "ahead of"
    what = f"this machine's clock is {round(distance.total_seconds())} s {direction} {owner}"
    remedy = (
        "set the wrong clock by NTP (systemd-timesyncd, chrony); with this difference valid ID "
        "tokens are rejected, and tokens are used after they expire"
    )
    if distance > _FAILURE:
        report.fail(what, remedy)
    else:
        report.warn(what, remedy)
