"""Dates and spans of time in words; all of them UTC, since no page asks where its reader is."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

_MINUTE, _HOUR, _DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
_AS_DAYS = 30
"""Longer ago than this, a date says more."""


@dataclass(frozen=True, slots=True)
class MomentWords:
    """How a language tells time."""

    just_now: str
    minutes: tuple[str, str]
    """For one, and for several; so are the next two."""
    hours: tuple[str, str]
    days: tuple[str, str]
    date: str
    months: tuple[str, ...]


def date_in_words(moment: datetime, words: MomentWords) -> str:
    """The day."""
    day = moment.astimezone(UTC)
    return words.date.format(day=day.day, month=words.months[day.month - 1], year=day.year)


def ago_in_words(moment: datetime, now: datetime, words: MomentWords) -> str:
    """How long ago that was, or the day if it was long ago."""
    passed = now - moment
    if passed < _MINUTE:
        return words.just_now
    if passed < _HOUR:
        return _counted(words.minutes, passed // _MINUTE)
    if passed < _DAY:
        return _counted(words.hours, passed // _HOUR)
    if passed // _DAY <= _AS_DAYS:
        return _counted(words.days, passed // _DAY)
    return date_in_words(moment, words)


def _counted(one_and_several: tuple[str, str], count: int) -> str:
    return one_and_several[count != 1].format(count=count)
