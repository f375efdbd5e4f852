"""A small Calendar API: the part of v3 with which Google's Python client lists and adds events."""

import json
import secrets
from datetime import UTC, datetime, timedelta
from typing import Any

from starlette.responses import JSONResponse, Response

from devstack.google_standin.account_endpoints import api_error, require_bearer
from devstack.google_standin.context import StandinContext
from devstack.google_standin.endpoints import NO_STORE, Call
from devstack.google_standin.model import Account

_PREFIX = "https://www.googleapis.com/auth/calendar"
_LIST_CALENDARS = (
    _PREFIX,
    _PREFIX + ".readonly",
    _PREFIX + ".calendarlist",
    _PREFIX + ".calendarlist.readonly",
)
_READ_EVENTS = (_PREFIX, _PREFIX + ".readonly", _PREFIX + ".events", _PREFIX + ".events.readonly")
_WRITE_EVENTS = (_PREFIX, _PREFIX + ".events")


class CalendarApi:
    """Each account has one calendar, with the ids `primary` and its email."""

    def __init__(self, context: StandinContext) -> None:
        self._context = context

    def calendar_list(self, call: Call) -> Response:
        token = require_bearer(self._context, call, _LIST_CALENDARS)
        if isinstance(token, Response):
            return token
        account = self._context.state.accounts[token.sub]
        primary = {
            "kind": "calendar#calendarListEntry",
            "etag": '"1"',
            "id": account.email,
            "summary": account.email,
            "timeZone": "UTC",
            "accessRole": "owner",
            "primary": True,
            "selected": True,
        }
        return _listing("calendar#calendarList", [primary])

    def list_events(self, call: Call) -> Response:
        account = self._calendar_owner(call, _READ_EVENTS)
        if isinstance(account, Response):
            return account
        events = self._events(account)
        wanted = call.parameters.get("maxResults", "")
        most = int(wanted) if wanted.isdigit() else 250
        return _listing("calendar#events", events[:most], summary=account.email, timeZone="UTC")

    def insert_event(self, call: Call) -> Response:
        account = self._calendar_owner(call, _WRITE_EVENTS)
        if isinstance(account, Response):
            return account
        try:
            body = json.loads(call.body)
        except ValueError:
            return api_error(400, "INVALID_ARGUMENT", "Parse Error", "parseError")
        if not isinstance(body, dict) or "start" not in body or "end" not in body:
            return api_error(400, "INVALID_ARGUMENT", "Missing end time.", "required")
        event = _event(account, **body)
        self._events(account).append(event)
        return JSONResponse(event, headers=NO_STORE)

    def _calendar_owner(self, call: Call, scopes: tuple[str, ...]) -> Account | Response:
        token = require_bearer(self._context, call, scopes)
        if isinstance(token, Response):
            return token
        account = self._context.state.accounts[token.sub]
        if call.request.path_params["calendar_id"] not in ("primary", account.email):
            return api_error(404, "NOT_FOUND", "Not Found", "notFound")
        return account

    def _events(self, account: Account) -> list[dict[str, Any]]:
        """Return the account's events; at first two examples."""
        events = self._context.state.events
        if account.sub not in events:
            tomorrow = self._context.clock.now().replace(hour=9, minute=0, second=0, microsecond=0)
            tomorrow += timedelta(days=1)
            events[account.sub] = [
                _event(account, summary="Stand-up", **_span(tomorrow, minutes=15)),
                _event(
                    account,
                    summary="Review the engine's notes",
                    **_span(tomorrow + timedelta(hours=5), minutes=60),
                ),
            ]
        return events[account.sub]


def _span(start: datetime, *, minutes: int) -> dict[str, Any]:
    end = start + timedelta(minutes=minutes)
    return {"start": {"dateTime": start.isoformat()}, "end": {"dateTime": end.isoformat()}}


def _event(account: Account, **body: Any) -> dict[str, Any]:
    event_id = secrets.token_hex(13)
    now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    return body | {
        "kind": "calendar#event",
        "etag": '"1"',
        "id": event_id,
        "status": "confirmed",
        "created": now,
        "updated": now,
        "creator": {"email": account.email, "self": True},
        "organizer": {"email": account.email, "self": True},
        "iCalUID": f"{event_id}@google.com",
        "eventType": "default",
    }


def _listing(kind: str, items: list[dict[str, Any]], **more: Any) -> Response:
    return JSONResponse({"kind": kind, "etag": '"1"', **more, "items": items}, headers=NO_STORE)
