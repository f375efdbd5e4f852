"""Pages for people: plain words in strict headers; no script, nothing from another server."""

from collections.abc import Iterable, Mapping
from urllib.parse import quote, urlsplit

import jinja2
from starlette.responses import Response

from broker.consent.outcomes import Connected, ConsentOutcome, NotConnected, Refusal
from broker.consent.static_files import StaticFiles
from broker.consent.visitors import VARY
from broker.consent.words import ENGLISH, Tone
from broker.google.scopes import canonical, plain_words

WITHDRAW_URL = "https://myaccount.google.com/connections"

_CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "style-src 'self'",
        "img-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": _CONTENT_SECURITY_POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "X-Robots-Tag": "noindex, nofollow",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), display-capture=(), geolocation=(), microphone=(), "
    "payment=(), publickey-credentials-get=(), usb=()",
}
_PAGE_HEADERS = {"Cross-Origin-Opener-Policy": "same-origin"}
"""For pages, where a trip ends. On a redirect it would cut off the product's own popup window."""
_HSTS = {"Strict-Transport-Security": "max-age=31536000"}

_REFUSAL_STATUS = {
    Refusal.LINK_NOT_OURS: 400,
    Refusal.LINK_EXPIRED: 410,
    Refusal.LINK_USED: 410,
    Refusal.LINK_ELSEWHERE: 403,
    Refusal.LINK_WITHDRAWN: 410,
    Refusal.NOT_FROM_OUR_PAGE: 403,
    Refusal.ANSWER_UNKNOWN: 400,
    Refusal.MALFORMED: 400,
}
_PASSING_REASONS = frozenset(
    {
        "client_refused",
        "google_unavailable",
        "internal_failure",
        "revocation_under_way",
        "server_error",
        "storage_unavailable",
        "temporarily_unavailable",
    }
)
_STATUS_WITH_WORDS = frozenset({404, 405, 500, 503})
_RETRY_AFTER_SECONDS = 30
_URL_CHARACTERS = ":/%#?=@[]!$&'()*+,;"
"""What stands for itself in a URL; the rest, such as an umlaut in `return_to`, is encoded."""


class Pages:
    """Renders each page, and dresses every answer that a browser gets."""

    def __init__(self, redirect_uris: Iterable[str]) -> None:
        self.static = StaticFiles()
        is_https = all(urlsplit(uri).scheme == "https" for uri in redirect_uris)
        self._headers = {**_HEADERS, **(_HSTS if is_https else {})}
        self._templates = jinja2.Environment(
            loader=jinja2.PackageLoader("broker.consent"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.globals.update(
            words=ENGLISH,
            style_url=self.static.url("style.css"),
            icon_url=self.static.url("icon.svg"),
            withdraw_url=WITHDRAW_URL,
        )

    def redirect(self, url: str) -> Response:
        """303: whatever the method was, the browser goes on with GET."""
        return Response(
            status_code=303, headers={**self._headers, "Location": quote(url, safe=_URL_CHARACTERS)}
        )

    def empty(self, status: int, headers: Mapping[str, str] | None = None) -> Response:
        """For a client that is no person."""
        return Response(status_code=status, headers={**self._headers, **(headers or {})})

    def connected(self, connected: Connected) -> Response:
        """The good end: which account, which rights, what is missing, how to withdraw."""
        return self._page(
            "connected.html",
            200,
            tone=Tone.GOOD,
            email=connected.grant.email,
            granted=rights(connected.grant.scopes),
            not_granted=rights(connected.not_granted),
        )

    def form_page(
        self, template: str, *, form_action: str, tone: Tone, **context: object
    ) -> Response:
        """A page in the middle of a trip, with a form that may lead to `form_action`.

        It leaves a product's popup window its opener, which is needed when the trip ends.
        """
        policy = _CONTENT_SECURITY_POLICY.replace(
            "form-action 'self'", f"form-action {form_action}"
        )
        headers = {
            "Content-Security-Policy": policy,
            "Cross-Origin-Opener-Policy": "unsafe-none",
            "Vary": VARY,
        }
        return self._page(template, 200, headers=headers, tone=tone, **context)

    def not_connected(self, ended: NotConnected, request_id: str | None = None) -> Response:
        """The other ends, each in its own words."""
        status = 503 if ended.reason in _PASSING_REASONS else 400
        return self._message(
            ended.reason,
            200 if ended.outcome is ConsentOutcome.DENIED else status,
            request_id=request_id,
            retry_url=ended.retry_url,
        )

    def refused(self, refusal: Refusal, request_id: str | None = None) -> Response:
        """A step that is not taken."""
        return self._message(refusal.value, _REFUSAL_STATUS[refusal], request_id=request_id)

    def error_page(
        self,
        status: int,
        *,
        request_id: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """For what happens before or outside a consent. Any status has words."""
        nearest = 500 if status >= 500 else 404 if status in (403, 410) else None
        if status in _STATUS_WITH_WORDS:
            key = str(status)
        else:
            key = str(nearest) if nearest is not None else Refusal.MALFORMED.value
        return self._message(key, status, request_id=request_id, headers=headers)

    def _message(
        self,
        key: str,
        status: int,
        *,
        request_id: str | None = None,
        retry_url: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        message = ENGLISH.message(key)
        waiting = {"Retry-After": str(_RETRY_AFTER_SECONDS)} if status == 503 else {}
        return self._page(
            "message.html",
            status,
            headers={**waiting, **(headers or {})},
            tone=message.tone,
            message=message,
            retry_url=retry_url if message.can_retry else None,
            # Something to quote to the people who run this, where there is something to mend.
            reference=request_id if message.tone is Tone.TROUBLE else None,
        )

    def _page(
        self,
        template: str,
        status: int,
        *,
        headers: Mapping[str, str] | None = None,
        **context: object,
    ) -> Response:
        return Response(
            self._templates.get_template(template).render(context),
            status_code=status,
            media_type="text/html",
            headers={
                **self._headers,
                **_PAGE_HEADERS,
                "Content-Language": ENGLISH.language,
                **(headers or {}),
            },
        )


def rights(scopes: Iterable[str]) -> list[str]:
    """Scopes in plain words, each once; that Google tells who it is goes without saying."""
    named = [scope for scope in scopes if canonical(scope) != "openid"]
    return list(dict.fromkeys(map(plain_words, named)))
