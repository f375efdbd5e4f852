"""Dates and elapsed times in words, all in UTC: no page asks for its reader's time zone."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

_MINUTE, _HOUR, _DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
_MOST_DAYS = 30
"""After more days than this the date is shown."""


@dataclass(frozen=True, slots=True)
class TimeWords:
    """How a language expresses times."""

    under_a_minute: str
    minutes: tuple[str, str]
    """Singular and plural; so are the next two."""
    hours: tuple[str, str]
    days: tuple[str, str]
    date: str
    months: tuple[str, ...]


def date_in_words(moment: datetime, words: TimeWords) -> str:
    """Return the date."""
    day = moment.astimezone(UTC)
    return words.date.format(day=day.day, month=words.months[day.month - 1], year=day.year)


def ago_in_words(moment: datetime, now: datetime, words: TimeWords) -> str:
    """Return how long ago `moment` was, or its date after more than 30 days."""
    passed = now - moment
    if passed < _MINUTE:
        return words.under_a_minute
    if passed < _HOUR:
        return _counted(words.minutes, passed // _MINUTE)
    if passed < _DAY:
        return _counted(words.hours, passed // _HOUR)
    if passed // _DAY <= _MOST_DAYS:
        return _counted(words.days, passed // _DAY)
    return date_in_words(moment, words)


def _counted(singular_and_plural: tuple[str, str], count: int) -> str:
    return singular_and_plural[count != 1].format(count=count)
