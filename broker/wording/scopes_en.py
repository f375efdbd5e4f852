"""What scopes let a service do, in words for people.

Decides nothing; a scope that is not known here is told by its name.
"""

from collections.abc import Iterable, Mapping

from broker.google.scopes import PREFIX, canonical
from broker.wording.scopes_ko import KOREAN

ENGLISH: Mapping[str, str] = {
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
"""By a scope's name without Google's prefix."""

_LANGUAGES: Mapping[str, Mapping[str, str]] = {"en": ENGLISH, "ko": KOREAN}


def plain_words(scope: str, language: str = "en") -> str:
    """What one scope lets a service do."""
    return _LANGUAGES[language].get(canonical(scope).removeprefix(PREFIX), scope)


def rights_in_words(scopes: Iterable[str], language: str) -> list[str]:
    """Scopes in plain words, each once; that Google tells who it is goes without saying."""
    named = [scope for scope in scopes if canonical(scope) != "openid"]
    return list(dict.fromkeys(plain_words(scope, language) for scope in named))
