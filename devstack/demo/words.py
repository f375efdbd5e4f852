"""The wording of scopes, statuses, tokens and times on the demo page."""

from collections.abc import Iterable
from datetime import UTC, datetime

_PREFIX = "https://www.googleapis.com/auth/"
_SCOPES = {
    "openid": "sign in",
    "email": "email address",
    _PREFIX + "userinfo.email": "email address",
    "profile": "name and picture",
    _PREFIX + "userinfo.profile": "name and picture",
    _PREFIX + "calendar": "read and change calendars",
    _PREFIX + "calendar.readonly": "read calendars",
    _PREFIX + "calendar.events": "read and change events",
    _PREFIX + "calendar.events.readonly": "read events",
    _PREFIX + "contacts.readonly": "read contacts",
    _PREFIX + "drive.readonly": "read files",
    _PREFIX + "gmail.readonly": "read mail",
    _PREFIX + "tasks.readonly": "read tasks",
}
_STATUSES = {
    "active": "active",
    "pending_confirmation": "pending confirmation",
    "reauthorization_required": "to be reconnected",
    "revoked": "removed",
}
_SHOWN_OF_A_TOKEN = 8


def scope_words(scope: str) -> str:
    """Return the scope in plain words, or the end of its name."""
    return _SCOPES.get(scope, scope.removeprefix(_PREFIX))


def scopes_words(scopes: Iterable[str]) -> list[str]:
    """Return the scopes in plain words, each once, in order."""
    return list(dict.fromkeys(map(scope_words, scopes)))


def status_words(status: str) -> str:
    return _STATUSES.get(status, status)


def token_words(access_token: str) -> tuple[str, int]:
    """Return what may be shown of a token: its first characters and its length."""
    return access_token[:_SHOWN_OF_A_TOKEN], len(access_token)


def span_words(seconds: int) -> str:
    """Format a duration: `59 min 12 s`, `1 h 5 min`."""
    minutes, rest = divmod(max(seconds, 0), 60)
    hours, minutes_left = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes_left} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def moment_words(moment: datetime | None) -> str:
    if moment is None:
        return "not yet"
    return f"{moment.astimezone(UTC):%-d %B %Y, %H:%M} UTC"
