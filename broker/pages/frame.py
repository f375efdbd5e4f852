"""The frame of every page: strict headers, one style; no script, nothing from another server."""

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Protocol
from urllib.parse import quote, urlsplit

import jinja2
from markupsafe import Markup, escape
from starlette.requests import Request
from starlette.responses import Response

from broker.pages.static_files import StaticFiles
from broker.pages.visitors import PREFETCH_HEADERS
from broker.wording.message import Message, Tone

_POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action {}; base-uri 'none'; "
    "frame-ancestors 'none'"
)
_HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "X-Robots-Tag": "noindex, nofollow",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), display-capture=(), geolocation=(), microphone=(), "
    "payment=(), publickey-credentials-get=(), usb=()",
}
_PAGE_HEADERS = {"Cross-Origin-Opener-Policy": "same-origin", "Vary": "Accept-Language"}
"""For pages, where a trip ends. On a redirect it would cut off the product's own popup window."""
_HSTS = {"Strict-Transport-Security": "max-age=31536000"}

_RETRY_AFTER_SECONDS = 30
_LONG_ADDRESS = 15
"""Characters of an email; so many go into one line of the narrowest telephone, 320 pixels wide."""

_URL_CHARACTERS = ":/%#?=@[]!$&'()*+,;"
"""What stands for itself in a URL; the rest, such as an umlaut in `return_to`, is encoded."""


class FrameWords(Protocol):
    """What the frame itself says."""

    @property
    def language(self) -> str:
        """BCP 47."""

    @property
    def site(self) -> str: ...

    @property
    def reference(self) -> str: ...


class Frame:
    """Renders templates, and dresses every answer that a browser gets."""

    def __init__(self, redirect_uris: Iterable[str], package: str) -> None:
        """`package` is the room whose templates are rendered, beside those of all rooms."""
        self.static = StaticFiles()
        is_https = all(urlsplit(uri).scheme == "https" for uri in redirect_uris)
        self._headers = {**_HEADERS, **(_HSTS if is_https else {})}
        self.templates = _templates(package)

    def redirect(self, url: str) -> Response:
        """303: whatever the method was, the browser goes on with GET."""
        return Response(
            status_code=303,
            headers={
                **self._headers,
                "Content-Security-Policy": _policy(()),
                "Location": quote(url, safe=_URL_CHARACTERS),
            },
        )

    def looked_at(self, request: Request) -> Response:
        """For what only looks; not 200 for a prefetch, or the browser would show it later."""
        return Response(
            status_code=200 if request.method == "HEAD" else 503,
            headers={
                **self._headers,
                "Content-Security-Policy": _policy(()),
                "Vary": ", ".join(PREFETCH_HEADERS),
            },
        )

    def message(
        self,
        message: Message,
        status: int,
        *,
        words: FrameWords,
        way: tuple[str, str] | None = None,
        request_id: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """A page of words, with the address and the name of a way on, if there is one."""
        waiting = {"Retry-After": str(_RETRY_AFTER_SECONDS)} if status == 503 else {}
        return self.page(
            "message.html",
            status,
            words=words,
            headers={**waiting, **(headers or {})},
            tone=message.tone,
            message=message,
            way=way,
            # Something to quote to the people who run this, where there is something to mend.
            reference=request_id if message.tone is Tone.TROUBLE else None,
        )

    def page(
        self,
        template: str,
        status: int,
        *,
        words: FrameWords,
        headers: Mapping[str, str] | None = None,
        form_targets: Iterable[str] = (),
        **context: object,
    ) -> Response:
        """Any page. Its forms lead to this origin, and by redirects to `form_targets`."""
        return Response(
            self.templates.get_template(template).render(words=words, **context),
            status_code=status,
            media_type="text/html",
            headers={
                **self._headers,
                **_PAGE_HEADERS,
                "Content-Security-Policy": _policy(form_targets),
                "Content-Language": words.language,
                **(headers or {}),
            },
        )


@cache
def _templates(package: str) -> jinja2.Environment:
    """Compiled once in a process, when they are first rendered."""
    templates = jinja2.Environment(
        loader=jinja2.ChoiceLoader(
            [jinja2.PackageLoader(package), jinja2.PackageLoader("broker.pages")]
        ),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    static = StaticFiles()
    templates.globals.update(style_url=static.url("style.css"), icon_url=static.url("icon.svg"))
    templates.filters.update(filled=filled, breaking=breaking)
    return templates


def _policy(form_targets: Iterable[str]) -> str:
    # Browsers hold a form to `form-action` through every redirect that follows.
    return _POLICY.format(" ".join(("'self'", *form_targets)))


def filled(text: str, **values: str) -> Markup:
    """Words with their `{places}` filled in; what is filled in is escaped, and stands out."""
    place = Markup("<bdi>{}</bdi>")
    marked = {name: place.format(value) for name, value in values.items()}
    return Markup(escape(text)).format(**marked)  # noqa: S704  (the text was escaped just now)


def breaking(address: str) -> Markup:
    """An email; a long one goes on in the next line at its dots and its @, not amid a word."""
    if len(address) <= _LONG_ADDRESS:
        return escape(address)
    return escape(address).replace(".", Markup(".<wbr>")).replace("@", Markup("<wbr>@"))
