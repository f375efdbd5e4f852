"""Google's scopes: the known names, the names in answers, and their meaning in plain words."""

from collections.abc import Iterable

EMAIL = "https://www.googleapis.com/auth/userinfo.email"
PROFILE = "https://www.googleapis.com/auth/userinfo.profile"
IDENTITY = frozenset({"openid", EMAIL, PROFILE})
"""These have no box to untick."""

_GOOGLES_NAMES = {"email": EMAIL, "profile": PROFILE}
_PREFIX = "https://www.googleapis.com/auth/"
_OTHER_SCOPES = frozenset({"openid", "https://mail.google.com/"})

_PLAIN_WORDS = {
    "openid": "Know which account this is",
    EMAIL: "See your email address",
    PROFILE: "See your name and picture",
    _PREFIX + "calendar": "See, edit, share and permanently delete all your calendars",
    _PREFIX + "calendar.readonly": "See your calendars and everything in them",
    _PREFIX + "calendar.events": "See and edit events on all your calendars",
    _PREFIX + "calendar.events.readonly": "See events on all your calendars",
    _PREFIX + "calendar.calendarlist.readonly": "See the list of your calendars",
    _PREFIX + "calendar.settings.readonly": "See your calendar settings",
    _PREFIX + "calendar.freebusy": "See when you are free or busy",
    _PREFIX + "contacts": "See, edit and delete your contacts",
    _PREFIX + "contacts.readonly": "See your contacts",
    _PREFIX + "drive": "See, edit, create and delete all your files",
    _PREFIX + "drive.file": "See and edit only the files you use with this app",
    _PREFIX + "drive.readonly": "See and download all your files",
    _PREFIX + "gmail.modify": "Read, write and send email",
    _PREFIX + "gmail.readonly": "Read your email",
    _PREFIX + "gmail.send": "Send email as you",
    _PREFIX + "spreadsheets": "See, edit, create and delete all your spreadsheets",
    _PREFIX + "tasks": "Create, edit and delete your tasks",
    _PREFIX + "tasks.readonly": "See your tasks",
    "https://mail.google.com/": "Read, write, send and permanently delete all your email",
}


def as_google_names(scopes: Iterable[str]) -> list[str]:
    """Return each scope once, in Google's own spelling, in the given order."""
    return list(dict.fromkeys(_GOOGLES_NAMES.get(scope, scope) for scope in scopes))


def is_known(scope: str) -> bool:
    """True if Google has this scope; any name with Google's prefix counts."""
    return scope in _OTHER_SCOPES or (scope.startswith(_PREFIX) and len(scope) > len(_PREFIX))


def plain_words(scope: str) -> str:
    """Return what the scope lets an app do, for a person."""
    return _PLAIN_WORDS.get(scope, f"Use {short_name(scope)}")


def short_name(scope: str) -> str:
    """Return the scope without Google's common prefix."""
    return scope.removeprefix(_PREFIX)


def touches_mail(scopes: Iterable[str]) -> bool:
    """True if a password change revokes a refresh token with these scopes."""
    return any(
        scope.startswith(_PREFIX + "gmail.") or scope == "https://mail.google.com/"
        for scope in scopes
    )
