"""The cookie that identifies a browser: the browser that opens a link must be the one that returns.

It says nothing about the user, and the table holds only its hash.
"""

import hashlib
import re
import secrets
from dataclasses import dataclass, field
from functools import partial

from starlette.responses import Response

from broker.crypto.signing import SIGNATURE_LENGTH, Signer
from broker.pages.browser_input import Cookies, only_valid

HTTPS_COOKIE = "__Host-broker_browser"
"""Browsers let only this host set it, and only over https (RFC 6265bis §4.1.3.2)."""
LOOPBACK_COOKIE = "broker_browser"

_MAX_AGE_SECONDS = 3600
_RANDOM_BYTES = 32
_VALUE = re.compile(rf"[A-Za-z0-9_-]{{43}}\.[A-Za-z0-9_-]{{{SIGNATURE_LENGTH}}}")


@dataclass(frozen=True, slots=True)
class Browser:
    """One browser, identified by a cookie that the broker signed."""

    cookie_name: str
    _cookie_value: str = field(repr=False)

    @property
    def hash(self) -> bytes:
        """The hash that the table holds. It covers the name, so that no plain cookie passes for a
        `__Host-` one.
        """
        return hashlib.sha256(f"{self.cookie_name}={self._cookie_value}".encode()).digest()

    def set_cookie(self, response: Response) -> None:
        """Make the browser keep its cookie."""
        response.set_cookie(
            self.cookie_name,
            self._cookie_value,
            max_age=_MAX_AGE_SECONDS,
            path="/",
            secure=self.cookie_name == HTTPS_COOKIE,
            httponly=True,
            # Lax: the cookie is sent when Google redirects the browser back.
            samesite="lax",
        )


class BrowserCookies:
    """Creates and reads the cookie."""

    def __init__(self, signer: Signer) -> None:
        self._signer = signer

    def identify(self, cookies: Cookies) -> tuple[Browser, ...]:
        """Return the browser under each cookie name that carries a valid value."""
        found = (self._read(name, cookies) for name in (HTTPS_COOKIE, LOOPBACK_COOKIE))
        return tuple(browser for browser in found if browser is not None)

    def identify_or_create(self, cookies: Cookies, *, is_https: bool) -> Browser:
        """Return the browser of a request, with a new cookie if it has no valid one."""
        name = HTTPS_COOKIE if is_https else LOOPBACK_COOKIE
        return self._read(name, cookies) or self._create(name)

    def _read(self, name: str, cookies: Cookies) -> Browser | None:
        value = only_valid(cookies, name, partial(self._is_valid, name))
        return Browser(name, value) if value is not None else None

    def _is_valid(self, name: str, value: str) -> bool:
        is_formed = _VALUE.fullmatch(value) is not None
        return is_formed and self._signer.verify(value, bound_to=(name,)) is not None

    def _create(self, name: str) -> Browser:
        value = secrets.token_urlsafe(_RANDOM_BYTES)
        return Browser(name, self._signer.sign(value, bound_to=(name,)))
