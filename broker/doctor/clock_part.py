"""Our clock beside others: ID tokens, links and tokens' lives are all judged by it."""

from datetime import timedelta

from broker.doctor.findings import Report

_WORTH_A_WARNING = timedelta(seconds=5)
_WRONG = timedelta(seconds=60)


def compare(report: Report, whose: str, ahead: timedelta) -> None:
    """Say how far another clock is ahead of ours; `whose` is a possessive."""
    distance = abs(ahead)
    if distance <= _WORTH_A_WARNING:
        report.ok(f"within {max(1, round(distance.total_seconds()))} s of {whose}")
        return
    direction = "behind" if ahead > timedelta(0) else "ahead of"
    what = f"this machine's clock is {round(distance.total_seconds())} s {direction} {whose}"
    remedy = (
        "set it by NTP (systemd-timesyncd, chrony), here or there, whichever is wrong; with such "
        "a difference good ID tokens are refused and tokens outlive their time"
    )
    if distance > _WRONG:
        report.fail(what, remedy)
    else:
        report.warn(what, remedy)
