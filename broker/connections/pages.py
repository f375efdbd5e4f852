"""The page of connections and what belongs to it, rendered in each language."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from starlette.requests import Request
from starlette.responses import Response

from broker.clock import rfc3339
from broker.connections.visitors import Notice
from broker.connections.visits import Visit
from broker.grants.model import Grant, GrantStatus, LastUse
from broker.pages.frame import Frame
from broker.wording.connections_en import ENGLISH, PageWords
from broker.wording.connections_ko import KOREAN
from broker.wording.languages import preferred
from broker.wording.scopes_en import rights_in_words
from broker.wording.times import ago_in_words, date_in_words

CATALOGUES = (ENGLISH, KOREAN)
"""The first is for readers of any other language."""

GOOGLES_OWN_URL = "https://myaccount.google.com/connections"

_MOST_RIGHTS = 5
"""More are folded away, but for this many less one."""

_GOOD_NEWS = (Notice.WITHDRAWN, Notice.ALREADY_WITHDRAWN, Notice.CONNECTED)

_STATUS = {
    "link_not_ours": 400,
    "link_expired": 410,
    "link_used": 410,
    "link_withdrawn": 410,
    "no_visit": 403,
    "visit_over": 403,
    "form_not_ours": 403,
    "malformed": 400,
    "closed": 200,
}


@dataclass(frozen=True, slots=True)
class Connection:
    """A grant, with what its owner may want to know and do."""

    grant: Grant
    asked_by: str
    """The service that is to confirm it, where that is still to come, by the name people know."""
    last_use: LastUse | None = None
    used_by: str | None = None
    """The service, by the name that people know."""
    connect_token: str | None = None
    """For the form that connects it again, where that can be done."""


@dataclass(frozen=True, slots=True)
class Overview:
    """All that the page shows."""

    visit: Visit
    service: str
    """Whoever sent the user here, by the name that people know."""
    connections: Sequence[Connection]
    leave_token: str
    notice: tuple[Notice, str | None] | None
    """What has just happened, and to which account, if that is still known."""
    now: datetime


@dataclass(frozen=True, slots=True)
class Moment:
    """A point in time for programs, for a glance, and in full."""

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
        """The pages in the language that this browser prefers."""
        asked = request.headers.get("accept-language")
        return self._by_language[preferred(asked, tuple(self._by_language))]


class ConnectionsPages:
    """The pages in one language."""

    def __init__(self, frame: Frame, words: PageWords) -> None:
        self._frame = frame
        self._words = words

    def overview(self, shown: Overview, *, form_targets: Sequence[str] = ()) -> Response:
        """What is connected, and what was until lately."""
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
            googles_own_url=GOOGLES_OWN_URL,
        )

    def confirmation(
        self, connection: Connection, shown: Overview, *, withdraw_token: str
    ) -> Response:
        """Asks whether that is what the user wants."""
        return self._frame.page(
            "withdraw.html",
            200,
            words=self._words,
            shown=shown,
            card=self._card(connection, shown),
            question=self._words.unconfirmed
            if connection.grant.status is GrantStatus.PENDING_CONFIRMATION
            else self._words.confirmation,
            withdraw_token=withdraw_token,
        )

    def refused(
        self, key: str, *, request_id: str, visit: Visit | None = None, service: str = ""
    ) -> Response:
        """A step that is not taken, with the way back if one is known."""
        words = self._words
        way = None
        if key == "form_not_ours":
            way = ("/connections", words.open_again)
        elif visit is not None and visit.return_to is not None:
            way = (visit.return_to, words.back.format(service=service))
        return self._frame.message(
            words.messages[key], _STATUS[key], words=words, way=way, request_id=request_id
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
            "tone": "good" if notice in _GOOD_NEWS else "trouble",
        }

    def _card(self, connection: Connection, shown: Overview) -> Mapping[str, object]:
        grant, words = connection.grant, self._words
        status = words.statuses[grant.status.value]
        rights = rights_in_words(grant.scopes, words.language)
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
            "is_waiting": grant.status is GrantStatus.PENDING_CONFIRMATION,
            "rights": rights if is_few else rights[: _MOST_RIGHTS - 1],
            "more_rights": [] if is_few else rights[_MOST_RIGHTS - 1 :],
            "connected": self._day(grant.connected_at),
            "changed": self._day(grant.updated_at),
            "used": self._ago(use.at, shown.now) if use is not None else None,
            "used_by": connection.used_by,
            "connect_token": connection.connect_token,
            "only_elsewhere": needs_user and connection.connect_token is None,
        }

    def _day(self, moment: datetime) -> Moment:
        return self._moment(moment, date_in_words(moment, self._words.moments))

    def _ago(self, moment: datetime, now: datetime) -> Moment:
        return self._moment(moment, ago_in_words(moment, now, self._words.moments))

    def _moment(self, moment: datetime, short: str) -> Moment:
        day = date_in_words(moment, self._words.moments)
        return Moment(rfc3339(moment), short, f"{day} {moment.astimezone(UTC):%H:%M} UTC")
