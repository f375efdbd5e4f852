"""Scope names as Google has them: which are the same, which are missing, what they mean in words.

Decides nothing about who may have a scope.
"""

import re
from collections.abc import Iterable

_PREFIX = "https://www.googleapis.com/auth/"
_ALIASES = {
    "email": _PREFIX + "userinfo.email",
    "profile": _PREFIX + "userinfo.profile",
}
"""Google grants the short OpenID names under their long ones (GOOGLE.md, granular consent)."""

IDENTITY_SCOPES = frozenset({"openid", _ALIASES["email"]})
"""Canonical names of the scopes without which an account stays unknown."""

_SCOPE_NAME = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,512}")

_PLAIN_WORDS = {
    "openid": "Know which Google account you use",
    "userinfo.email": "See your email address",
    "userinfo.profile": "See your name and picture",
    "calendar": "See, change, share and delete your calendars",
    "calendar.readonly": "See your calendars",
    "calendar.events": "See and change events in your calendars",
    "calendar.events.readonly": "See events in your calendars",
    "calendar.events.owned": "See and change events in calendars that you own",
    "calendar.events.owned.readonly": "See events in calendars that you own",
    "calendar.events.public.readonly": "See events in public calendars",
    "calendar.freebusy": "See when you are free or busy",
    "calendar.settings.readonly": "See your calendar settings",
    "calendar.calendarlist": "See and change the list of your calendars",
    "calendar.calendarlist.readonly": "See the list of your calendars",
    "calendar.calendars": "See and change properties of your calendars, and make new ones",
    "calendar.calendars.readonly": "See the names and properties of your calendars",
    "calendar.acls": "See and change who may use your calendars",
    "calendar.acls.readonly": "See who may use your calendars",
    "calendar.app.created": "Make calendars of its own, and change events in them",
    "gmail.readonly": "Read your email",
    "gmail.send": "Send email for you",
    "gmail.compose": "Write drafts and send email for you",
    "gmail.modify": "Read, write, send and sort your email",
    "gmail.insert": "Add email to your mailbox",
    "gmail.labels": "See and change your email labels",
    "gmail.metadata": "See your email headers and labels, but not the messages",
    "gmail.settings.basic": "See and change your email settings and filters",
    "gmail.settings.sharing": "See and change who may use your mailbox",
    "drive": "See, change and delete all your Google Drive files",
    "drive.readonly": "See all your Google Drive files",
    "drive.file": "See and change only the Google Drive files that you open with it",
    "drive.metadata": "See and change information about your Google Drive files",
    "drive.metadata.readonly": "See information about your Google Drive files",
    "drive.appdata": "Keep its own settings in your Google Drive",
    "drive.activity": "See and change the history of your Google Drive files",
    "drive.activity.readonly": "See the history of your Google Drive files",
    "drive.photos.readonly": "See your photos in Google Drive",
    "drive.scripts": "Change how your Apps Script programs behave",
    "contacts": "See, change and delete your contacts",
    "contacts.readonly": "See your contacts",
    "contacts.other.readonly": "See people whom you have written to",
    "directory.readonly": "See your organisation's directory",
    "user.addresses.read": "See your street addresses",
    "user.birthday.read": "See your date of birth",
    "user.emails.read": "See all your email addresses",
    "user.gender.read": "See your gender",
    "user.organization.read": "See where you work or study",
    "user.phonenumbers.read": "See your phone numbers",
    "tasks": "See, change and delete your tasks",
    "tasks.readonly": "See your tasks",
    "spreadsheets": "See, change and delete all your spreadsheets",
    "spreadsheets.readonly": "See all your spreadsheets",
    "documents": "See, change and delete all your documents",
    "documents.readonly": "See all your documents",
    "presentations": "See, change and delete all your presentations",
    "presentations.readonly": "See all your presentations",
    "forms.body": "See and change all your forms",
    "forms.body.readonly": "See all your forms",
    "forms.responses.readonly": "See the answers to your forms",
    "meetings.space.created": "Make video meetings, and change those that it made",
    "meetings.space.readonly": "See your video meetings",
    "meetings.space.settings": "See and change settings of your video meetings",
    "chat.messages": "See, write and delete your chat messages",
    "chat.messages.create": "Write chat messages for you",
    "chat.messages.readonly": "See your chat messages",
    "chat.spaces": "Make chat spaces, and see and change yours",
    "chat.spaces.readonly": "See your chat spaces",
    "keep": "See, change and delete your notes",
    "keep.readonly": "See your notes",
    "youtube": "Manage your YouTube account",
    "youtube.readonly": "See your YouTube account",
    "youtube.force-ssl": "See, change and delete your YouTube videos, ratings and comments",
    "youtube.upload": "Add and manage your YouTube videos",
    "yt-analytics.readonly": "See reports about your YouTube content",
    "photoslibrary.readonly": "See your Google Photos library",
    "photoslibrary.appendonly": "Add to your Google Photos library",
    "classroom.courses.readonly": "See your Google Classroom classes",
    "analytics.readonly": "See your Google Analytics data",
    "cloud-platform": "See, change and delete your Google Cloud data",
    "cloud-platform.read-only": "See your Google Cloud data",
    "https://mail.google.com/": "Read, write, send and permanently delete all your email",
}


def canonical(scope: str) -> str:
    """The one name by which scopes are compared; a name without aliases is its own."""
    return _ALIASES.get(scope, scope)


def is_scope_name(text: str) -> bool:
    """Whether a scope may be called that at all (RFC 6749 §3.3)."""
    return _SCOPE_NAME.fullmatch(text) is not None


def parse_scopes(text: str) -> tuple[str, ...]:
    """The names in a space-separated list, as written and in order, each once."""
    return tuple(dict.fromkeys(text.split()))


def missing(asked: Iterable[str], granted: Iterable[str]) -> tuple[str, ...]:
    """What was asked for and not granted, named as asked."""
    held = _canonical_set(granted)
    return tuple(scope for scope in asked if canonical(scope) not in held)


def shared(a: Iterable[str], b: Iterable[str]) -> tuple[str, ...]:
    """The names from `a` that `b` has too, under whichever name."""
    other = _canonical_set(b)
    return tuple(scope for scope in a if canonical(scope) in other)


def is_within(inner: Iterable[str], outer: Iterable[str]) -> bool:
    """Whether `outer` has all of `inner`.

    Only names are compared: `calendar` does not contain `calendar.readonly`.
    """
    return not missing(inner, outer)


def plain_words(scope: str) -> str:
    """What a scope lets a service do, for people; a scope not known here is told by its name."""
    name = canonical(scope)
    return _PLAIN_WORDS.get(name.removeprefix(_PREFIX), scope)


def _canonical_set(scopes: Iterable[str]) -> frozenset[str]:
    return frozenset(map(canonical, scopes))
