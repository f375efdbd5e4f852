"""The cookies of the page: by which a visitor is known again, and by which it is told what it did.

The first is 256 random bits, new with every link that is opened, and says nothing of the user.
"""

import hashlib
import re
import secrets
from dataclasses import dataclass, field
from enum import StrEnum

from starlette.responses import Response

from broker.crypto.signing import SIGNATURE_LENGTH, Signer
from broker.pages.cookies import Cookies, only_good

VISITOR_COOKIE = "broker_connections"
NOTICE_COOKIE = "broker_connections_notice"
HTTPS_PREFIX = "__Host-"
"""Browsers let nobody but this very host set it, and only over https (RFC 6265bis §4.1.3.2)."""

_KEPT_SECONDS = 3600
"""Longer than a visit, so that one who comes late is told that it is over."""
_NOTICE_SECONDS = 60
_RANDOM_BYTES = 32
_VALUE = re.compile(rf"[A-Za-z0-9_-]{{43}}\.[A-Za-z0-9_-]{{{SIGNATURE_LENGTH}}}")


class Deed(StrEnum):
    """What a form of the page does."""

    WITHDRAW = "withdraw"
    CONNECT = "connect"
    LEAVE = "leave"


class Notice(StrEnum):
    """What has just happened; each has words."""

    WITHDRAWN = "withdrawn"
    ALREADY_WITHDRAWN = "already_withdrawn"
    CONNECTED = "connected"
    NOT_CONNECTED = "not_connected"
    CANNOT_CONNECT = "cannot_connect"


_NOTICES = frozenset(notice.value for notice in Notice)


@dataclass(frozen=True, slots=True)
class Visitor:
    """One browser's stay, known by its cookie."""

    cookie_name: str
    value: str = field(repr=False)

    @property
    def hash(self) -> bytes:
        """What the table holds. The name counts, so that no plain cookie passes for a `__Host-`."""
        return hashlib.sha256(f"{self.cookie_name}={self.value}".encode()).digest()


class VisitorCookies:
    """Makes and reads the cookies, and the proof in each form that it is the visitor's own."""

    def __init__(self, *, visitors: Signer, forms: Signer, notices: Signer, is_https: bool) -> None:
        self._visitors = visitors
        self._forms = forms
        self._notices = notices
        self._is_https = is_https
        prefix = HTTPS_PREFIX if is_https else ""
        self._visitor_cookie = prefix + VISITOR_COOKIE
        self._notice_cookie = prefix + NOTICE_COOKIE

    def new(self) -> Visitor:
        """A visitor that nobody can have known before (no session fixation)."""
        name = self._visitor_cookie
        value = secrets.token_urlsafe(_RANDOM_BYTES)
        return Visitor(name, self._visitors.sign(value, bound_to=(name,)))

    def of(self, cookies: Cookies) -> Visitor | None:
        """The visitor that a request says it comes from; the table knows whether there is one."""
        name = self._visitor_cookie
        value = only_good(cookies, name, self._is_ours)
        return Visitor(name, value) if value is not None else None

    def _is_ours(self, value: str) -> bool:
        """The signature saves a look into the table for whatever a stranger makes up."""
        is_formed = _VALUE.fullmatch(value) is not None
        return (
            is_formed and self._visitors.verify(value, bound_to=(self._visitor_cookie,)) is not None
        )

    def remember(self, visitor: Visitor, response: Response) -> None:
        """Have the browser keep its cookie."""
        self._set(response, self._visitor_cookie, visitor.value, _KEPT_SECONDS)

    def form_token(self, visitor: Visitor, deed: Deed, about: str = "") -> str:
        """What a form must bring: good for this visitor, this deed and this account only."""
        return self._forms.sign(deed.value, bound_to=(visitor.hash.hex(), about))

    def has_made(self, unverified_token: str, visitor: Visitor, deed: Deed, about: str) -> bool:
        """Whether the form is the visitor's own (OWASP ASVS 5.0, V3.5)."""
        bound_to = (visitor.hash.hex(), about)
        return self._forms.verify(unverified_token, bound_to=bound_to) == deed.value

    def note(self, visitor: Visitor, notice: Notice, about: str, response: Response) -> None:
        """Tell the visitor on the next page."""
        value = self._notices.sign(f"{notice}.{about}", bound_to=(visitor.hash.hex(),))
        self._set(response, self._notice_cookie, value, _NOTICE_SECONDS)

    def noted(self, visitor: Visitor, cookies: Cookies) -> tuple[Notice, str] | None:
        """What the visitor is to be told, and about which grant."""
        bound_to = (visitor.hash.hex(),)
        signed = only_good(
            cookies,
            self._notice_cookie,
            lambda unverified: self._notices.verify(unverified, bound_to=bound_to) is not None,
        )
        value = self._notices.verify(signed or "", bound_to=bound_to)
        if value is None:
            return None
        notice, _, about = value.partition(".")
        # A replica of another release may know others.
        return (Notice(notice), about) if notice in _NOTICES else None

    def drop_kept_pages(self, response: Response) -> None:
        """Have the browser load pages anew that it kept for its back button.

        Chromium keeps also what is `no-store`, until an `HttpOnly` cookie of the site changes; a
        notice is such a change, too.
        """
        self._set(response, self._notice_cookie, secrets.token_urlsafe(8), _NOTICE_SECONDS)

    def told(self, response: Response) -> None:
        """Once is enough."""
        self._delete(response, self._notice_cookie)

    def _set(self, response: Response, name: str, value: str, max_age: int) -> None:
        response.set_cookie(
            name,
            value,
            max_age=max_age,
            path="/",
            secure=self._is_https,
            httponly=True,
            # Lax lets it come along when Google sends the browser back.
            samesite="lax",
        )

    def _delete(self, response: Response, name: str) -> None:
        response.delete_cookie(name, path="/", secure=self._is_https, httponly=True, samesite="lax")
