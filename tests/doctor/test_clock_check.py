"""This machine's clock beside those of Google and PostgreSQL."""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from broker.doctor.clock_check import check_clock
from broker.doctor.examination import examine
from broker.doctor.findings import Finding, Verdict


@pytest.mark.parametrize(
    ("ahead", "verdict", "words"),
    [
        (0.2, Verdict.OK, "within 1 s of Google's"),
        (-5, Verdict.OK, "within 5 s of Google's"),
        (6, Verdict.WARNING, "is 6 s behind Google's"),
        (-60, Verdict.WARNING, "is 60 s ahead of Google's"),
        (61, Verdict.FAILED, "is 61 s behind Google's"),
        (-3600, Verdict.FAILED, "is 3600 s ahead of Google's"),
    ],
)
def test_a_difference_is_ok_a_warning_or_a_failure(
    ahead: float, verdict: Verdict, words: str
) -> None:
    (finding,) = check_clock(timedelta(seconds=ahead), None)
    assert finding.verdict is verdict
    assert words in finding.what


def test_both_other_clocks_are_compared() -> None:
    findings = check_clock(timedelta(0), timedelta(seconds=90))
    assert [each.verdict for each in findings] == [Verdict.OK, Verdict.FAILED]


def test_without_another_clock_there_is_nothing_to_compare() -> None:
    (finding,) = check_clock(None, None)
    assert finding.verdict is Verdict.SKIPPED


@dataclass(frozen=True)
class ClockOff:
    """The real time plus an offset."""

    by: timedelta

    def now(self) -> datetime:
        return datetime.now(UTC) + self.by

    def epoch(self) -> float:
        return self.now().timestamp()


@pytest.mark.parametrize(
    ("seconds", "verdict", "words"),
    [
        (0, "ok", "within "),
        (20, "warn", " s ahead of "),
        (-300, "FAIL", " s behind "),
    ],
)
def test_the_clock_is_compared_with_those_of_google_and_postgresql(
    env: dict[str, str], seconds: int, verdict: str, words: str
) -> None:
    found = asyncio.run(examine(env, ClockOff(timedelta(seconds=seconds))))
    about_clock: list[Finding] = [each for each in found if each.part == "clock"]
    assert [each.verdict.value for each in about_clock] == [verdict, verdict]
    assert all(words in each.what for each in about_clock)
    assert about_clock[0].what.endswith("Google's")
    assert about_clock[1].what.endswith("PostgreSQL's")
