"""A client of Google's Calendar API, with a token from the broker."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import httpx2

from broker.secret import Secret

CALENDAR_SCOPE = "https://www.googleapis.com/auth/calendar.readonly"
_MOST_EVENTS = 10


class CalendarError(Exception):
    """The API refused or did not answer; the message states which."""


@dataclass(frozen=True, slots=True)
class Event:
    """One entry of a calendar."""

    title: str
    when: str


@dataclass(frozen=True, slots=True)
class Calendar:
    """The calendars and events that a token can read."""

    names: tuple[str, ...]
    events: tuple[Event, ...]


async def read_calendar(http: httpx2.AsyncClient, access_token: Secret) -> Calendar:
    """Read the account's calendars and its next events. Raises `CalendarError`."""
    bearer = {"Authorization": f"Bearer {access_token.reveal()}"}
    calendars = await _get(http, "/calendar/v3/users/me/calendarList", bearer, {})
    events = await _get(
        http,
        "/calendar/v3/calendars/primary/events",
        bearer,
        {
            "timeMin": datetime.now(UTC).replace(microsecond=0).isoformat(),
            "singleEvents": "true",
            "orderBy": "startTime",
            "maxResults": str(_MOST_EVENTS),
        },
    )
    return Calendar(
        names=tuple(str(item.get("summary", "")) for item in calendars.get("items", ())),
        events=tuple(_event(item) for item in events.get("items", ())),
    )


async def _get(
    http: httpx2.AsyncClient, path: str, bearer: Mapping[str, str], parameters: Mapping[str, str]
) -> dict[str, Any]:
    try:
        response = await http.get(path, headers=dict(bearer), params=dict(parameters))
        document = response.json()
    except httpx2.HTTPError as error:
        raise CalendarError(f"no answer from {http.base_url}") from error
    except ValueError as error:
        raise CalendarError(f"{response.status_code}, and no JSON") from error
    if not response.is_success:
        message = document.get("error", {}).get("message", "no reason given")
        raise CalendarError(f"{response.status_code}, {message}")
    result: dict[str, Any] = document
    return result


def _event(item: Mapping[str, Any]) -> Event:
    return Event(str(item.get("summary") or "(no title)"), _when(item.get("start") or {}))


def _when(start: Mapping[str, Any]) -> str:
    """The API returns a date for a whole day, otherwise a time with its offset."""
    if "date" in start:
        return f"{date.fromisoformat(start['date']):%a %-d %b}, all day"
    if "dateTime" in start:
        return f"{datetime.fromisoformat(start['dateTime']):%a %-d %b, %H:%M}"
    return ""
