"""Dates and elapsed times in words."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from broker.wording.connections_en import ENGLISH
from broker.wording.connections_ko import KOREAN
from broker.wording.times import ago_in_words, date_in_words

NOW = datetime(2026, 3, 12, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("passed", "english", "korean"),
    [
        (timedelta(seconds=-5), "less than a minute ago", "방금"),
        (timedelta(seconds=59), "less than a minute ago", "방금"),
        (timedelta(seconds=60), "1 minute ago", "1분 전"),
        (timedelta(minutes=59, seconds=59), "59 minutes ago", "59분 전"),
        (timedelta(hours=1), "1 hour ago", "1시간 전"),
        (timedelta(hours=23, minutes=59), "23 hours ago", "23시간 전"),
        (timedelta(days=1), "1 day ago", "1일 전"),
        (timedelta(days=30, hours=23), "30 days ago", "30일 전"),
        (timedelta(days=31), "9 February 2026", "2026년 2월 9일"),
    ],
)
def test_elapsed_time(passed: timedelta, english: str, korean: str) -> None:
    assert ago_in_words(NOW - passed, NOW, ENGLISH.times) == english
    assert ago_in_words(NOW - passed, NOW, KOREAN.times) == korean


def test_dates_are_utc() -> None:
    seoul = timezone(timedelta(hours=9))
    moment = datetime(2026, 1, 1, 5, 0, tzinfo=seoul)
    assert date_in_words(moment, ENGLISH.times) == "31 December 2025"
    assert date_in_words(moment, KOREAN.times) == "2025년 12월 31일"
