"""The cookies of the connections page: one identifies the visitor, one carries the next notice.

The first is 256 random bits, new with every link that is opened, and says nothing about the user.
"""

import hashlib
import re
import secrets
from dataclasses import dataclass, field
from enum import StrEnum

from starlette.responses import Response

from broker.crypto.signing import SIGNATURE_LENGTH, Signer
from broker.pages.browser_input import Cookies, only_valid

VISITOR_COOKIE = "broker_connections"
NOTICE_COOKIE = "broker_connections_notice"
HTTPS_PREFIX = "__Host-"
"""Browsers let only this host set it, and only over https (RFC 6265bis §4.1.3.2)."""

_VISITOR_SECONDS = 3600
"""Longer than a visit, so that a browser that comes late learns that its visit is over."""
_NOTICE_SECONDS = 60
_RANDOM_BYTES = 32
_VALUE = re.compile(rf"[A-Za-z0-9_-]{{43}}\.[A-Za-z0-9_-]{{{SIGNATURE_LENGTH}}}")


class FormAction(StrEnum):
    """What a form of the page does."""

    WITHDRAW = "withdraw"
    CONNECT = "connect"
    LEAVE = "leave"


class Notice(StrEnum):
    """What has just happened; the catalogues have a text for each."""

    WITHDRAWN = "withdrawn"
    ALREADY_WITHDRAWN = "already_withdrawn"
    CONNECTED = "connected"
    NOT_CONNECTED = "not_connected"
    CANNOT_CONNECT = "cannot_connect"


_NOTICES = frozenset(notice.value for notice in Notice)


@dataclass(frozen=True, slots=True)
class Visitor:
    """A browser during one visit, identified by its cookie."""

    cookie_name: str
    value: str = field(repr=False)

    @property
    def hash(self) -> bytes:
        """The hash that the table holds. It covers the name, so that no plain cookie passes for a
        `__Host-` one.
        """
        return hashlib.sha256(f"{self.cookie_name}={self.value}".encode()).digest()


class VisitorCookies:
    """Creates and reads the cookies, and each form's token, which proves whose form it is."""

    def __init__(self, *, visitors: Signer, forms: Signer, notices: Signer, is_https: bool) -> None:
        self._visitors = visitors
        self._forms = forms
        self._notices = notices
        self._is_https = is_https
        prefix = HTTPS_PREFIX if is_https else ""
        self._visitor_cookie = prefix + VISITOR_COOKIE
        self._notice_cookie = prefix + NOTICE_COOKIE

    # The visitor.

    def create(self) -> Visitor:
        """Return a visitor with a new random value (no session fixation)."""
        name = self._visitor_cookie
        value = secrets.token_urlsafe(_RANDOM_BYTES)
        return Visitor(name, self._visitors.sign(value, bound_to=(name,)))

    def identify(self, cookies: Cookies) -> Visitor | None:
        """Return the visitor of a request. Its visit, if it has one, is in the table."""
        name = self._visitor_cookie
        value = only_valid(cookies, name, self._is_valid)
        return Visitor(name, value) if value is not None else None

    def _is_valid(self, value: str) -> bool:
        """Check the signature first: an invented value costs no query."""
        is_formed = _VALUE.fullmatch(value) is not None
        return (
            is_formed and self._visitors.verify(value, bound_to=(self._visitor_cookie,)) is not None
        )

    def set_visitor(self, visitor: Visitor, response: Response) -> None:
        """Make the browser keep its cookie."""
        self._set(response, self._visitor_cookie, visitor.value, _VISITOR_SECONDS)

    # Form tokens.

    def form_token(self, visitor: Visitor, action: FormAction, grant_id: str = "") -> str:
        """Return the token of a form: valid for this visitor, action and grant only."""
        return self._forms.sign(action.value, bound_to=(visitor.hash.hex(), grant_id))

    def is_form_token(
        self, unverified_token: str, visitor: Visitor, action: FormAction, grant_id: str
    ) -> bool:
        """True if the form is the visitor's own (OWASP ASVS 5.0, V3.5)."""
        bound_to = (visitor.hash.hex(), grant_id)
        return self._forms.verify(unverified_token, bound_to=bound_to) == action.value

    # Notices.

    def set_notice(
        self, visitor: Visitor, notice: Notice, grant_id: str, response: Response
    ) -> None:
        """Show a notice on the visitor's next page."""
        value = self._notices.sign(f"{notice}.{grant_id}", bound_to=(visitor.hash.hex(),))
        self._set(response, self._notice_cookie, value, _NOTICE_SECONDS)

    def read_notice(self, visitor: Visitor, cookies: Cookies) -> tuple[Notice, str] | None:
        """Return the notice for the visitor, and the id of the grant that it is about."""
        bound_to = (visitor.hash.hex(),)
        signed = only_valid(
            cookies,
            self._notice_cookie,
            lambda unverified: self._notices.verify(unverified, bound_to=bound_to) is not None,
        )
        value = self._notices.verify(signed or "", bound_to=bound_to)
        if value is None:
            return None
        notice, _, grant_id = value.partition(".")
        # A replica of another release may use other notices.
        return (Notice(notice), grant_id) if notice in _NOTICES else None

    def delete_notice(self, response: Response) -> None:
        """Make the browser forget the notice, which was shown."""
        response.delete_cookie(
            self._notice_cookie, path="/", secure=self._is_https, httponly=True, samesite="lax"
        )

    def invalidate_kept_pages(self, response: Response) -> None:
        """Make the browser reload pages that it kept for its back button.

        Chromium keeps `no-store` pages too, until an `HttpOnly` cookie of the site changes; a
        notice is also such a change.
        """
        self._set(response, self._notice_cookie, secrets.token_urlsafe(8), _NOTICE_SECONDS)

    def _set(self, response: Response, name: str, value: str, max_age: int) -> None:
        response.set_cookie(
            name,
            value,
            max_age=max_age,
            path="/",
            secure=self._is_https,
            httponly=True,
            # Lax: the cookie is sent when Google redirects the browser back.
            samesite="lax",
        )
