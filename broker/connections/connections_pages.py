"""Renders the connections page, and the pages that belong to it, in each language."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from starlette.requests import Request
from starlette.responses import Response

from broker.clock import rfc3339
from broker.connections.visitor_cookies import Notice
from broker.connections.visits import PAGE_PATH, Visit
from broker.grants.model import Grant, GrantStatus, LastUse
from broker.pages.frame import Frame, MessagePage, Tone
from broker.wording.catalogue import ConnectionsWords, preferred_language
from broker.wording.connections_en import ENGLISH
from broker.wording.connections_ko import KOREAN
from broker.wording.scope_words import scopes_in_words
from broker.wording.times import ago_in_words, date_in_words

CATALOGUES = (ENGLISH, KOREAN)
"""The first is the default for other languages."""

GOOGLE_CONNECTIONS_URL = "https://myaccount.google.com/connections"

_MOST_RIGHTS = 5
"""A card with more of them shows one less than this, and folds the rest."""

_GOOD_NOTICES = (Notice.WITHDRAWN, Notice.ALREADY_WITHDRAWN, Notice.CONNECTED)

MESSAGE_PAGES: Mapping[str, MessagePage] = {
    "link_not_ours": MessagePage(400),
    "link_expired": MessagePage(410, Tone.CALM),
    "link_used": MessagePage(410, Tone.CALM),
    "link_withdrawn": MessagePage(410, Tone.CALM),
    "no_visit": MessagePage(403, Tone.CALM),
    "visit_over": MessagePage(403, Tone.CALM),
    "form_not_ours": MessagePage(403),
    "malformed": MessagePage(400),
    "closed": MessagePage(200, Tone.GOOD),
}
"""By refusal. Each catalogue has the text under the same key."""


@dataclass(frozen=True, slots=True)
class Connection:
    """A grant as its user sees it."""

    grant: Grant
    asked_by: str
    """The display name of the service that must confirm it, if it is pending."""
    last_use: LastUse | None = None
    used_by: str | None = None
    """The display name of the service that used it last."""
    connect_token: str | None = None
    """For the form that connects it again, if that is possible."""


@dataclass(frozen=True, slots=True)
class Overview:
    """All that the page shows."""

    visit: Visit
    service: str
    """The display name of the caller that sent the user here."""
    connections: Sequence[Connection]
    leave_token: str
    notice: tuple[Notice, str | None] | None
    """What has just happened, and the account's email if that is still known."""
    now: datetime


@dataclass(frozen=True, slots=True)
class ShownTime:
    """A point in time: for programs, short, and in full."""

    iso: str
    short: str
    full: str


class TranslatedConnectionsPages:
    """The pages in every language."""

    def __init__(self, redirect_uris: Iterable[str]) -> None:
        self.frame = Frame(redirect_uris, "broker.connections")
        self.frame.templates.globals["sheet_url"] = self.frame.static.url("connections.css")
        self._by_language = {
            words.language: ConnectionsPages(self.frame, words) for words in CATALOGUES
        }

    def for_reader(self, request: Request) -> "ConnectionsPages":
        """Return the pages in the language that this browser prefers."""
        header = request.headers.get("accept-language")
        return self._by_language[preferred_language(header, tuple(self._by_language))]


class ConnectionsPages:
    """Renders the pages in one language."""

    def __init__(self, frame: Frame, words: ConnectionsWords) -> None:
        self._frame = frame
        self._words = words

    def overview(self, shown: Overview, *, form_targets: Sequence[str] = ()) -> Response:
        """Return the page: what is connected, and what was withdrawn recently."""
        is_over = {c: c.grant.status is GrantStatus.REVOKED for c in shown.connections}
        return self._frame.page(
            "connections.html",
            200,
            words=self._words,
            form_targets=form_targets,
            shown=shown,
            notice=self._notice(shown),
            live=[self._card(c, shown) for c in shown.connections if not is_over[c]],
            withdrawn=[self._card(c, shown) for c in shown.connections if is_over[c]],
            google_connections_url=GOOGLE_CONNECTIONS_URL,
        )

    def confirmation(
        self, connection: Connection, shown: Overview, *, withdraw_token: str
    ) -> Response:
        """Return the page that asks for confirmation before a withdrawal."""
        is_pending = connection.grant.status is GrantStatus.PENDING_CONFIRMATION
        return self._frame.page(
            "withdraw.html",
            200,
            words=self._words,
            shown=shown,
            card=self._card(connection, shown),
            question=self._words.unconfirmed if is_pending else self._words.confirmation,
            withdraw_token=withdraw_token,
        )

    def refused(
        self, key: str, *, request_id: str, visit: Visit | None = None, service: str = ""
    ) -> Response:
        """Return the page of a refused step, with the way back if `visit` has one."""
        words = self._words
        link = None
        if key == "form_not_ours":
            link = (PAGE_PATH, words.open_again)
        elif visit is not None and visit.return_to is not None:
            link = (visit.return_to, words.back.format(service=service))
        return self._frame.message(
            words.messages[key], MESSAGE_PAGES[key], words=words, link=link, request_id=request_id
        )

    def _notice(self, shown: Overview) -> Mapping[str, str] | None:
        if shown.notice is None:
            return None
        notice, email = shown.notice
        words = self._words.notices if email else self._words.nameless_notices
        if notice not in words:
            return None
        return {
            "words": words[notice],
            "email": email or "",
            "tone": "good" if notice in _GOOD_NOTICES else "trouble",
        }

    def _card(self, connection: Connection, shown: Overview) -> Mapping[str, object]:
        grant, words = connection.grant, self._words
        status = words.statuses[grant.status.value]
        rights = scopes_in_words(grant.scopes, words.language)
        is_few = len(rights) <= _MOST_RIGHTS
        use = connection.last_use
        needs_user = grant.status is GrantStatus.REAUTHORIZATION_REQUIRED
        return {
            "id": str(grant.id),
            "email": grant.email,
            "initial": grant.email[:1].upper(),
            "status": grant.status.value,
            "status_words": status.name,
            "meaning": status.meaning,
            "asked_by": connection.asked_by,
            "is_pending": grant.status is GrantStatus.PENDING_CONFIRMATION,
            "rights": rights if is_few else rights[: _MOST_RIGHTS - 1],
            "more_rights": [] if is_few else rights[_MOST_RIGHTS - 1 :],
            "connected": self._day(grant.connected_at),
            "changed": self._day(grant.updated_at),
            "used": self._ago(use.at, shown.now) if use is not None else None,
            "used_by": connection.used_by,
            "connect_token": connection.connect_token,
            "only_elsewhere": needs_user and connection.connect_token is None,
        }

    def _day(self, moment: datetime) -> ShownTime:
        return self._time(moment, date_in_words(moment, self._words.times))

    def _ago(self, moment: datetime, now: datetime) -> ShownTime:
        return self._time(moment, ago_in_words(moment, now, self._words.times))

    def _time(self, moment: datetime, short: str) -> ShownTime:
        day = date_in_words(moment, self._words.times)
        return ShownTime(rfc3339(moment), short, f"{day} {moment.astimezone(UTC):%H:%M} UTC")
