"""What all pages share: strict headers, one style, no script, nothing from another server."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib import resources
from typing import Protocol
from urllib.parse import quote, urlsplit

import jinja2
from markupsafe import Markup, escape
from starlette.requests import Request
from starlette.responses import Response

from broker.pages.user_agents import PREFETCH_HEADERS
from broker.wording.catalogue import PageText

STATIC_PATH = "/auth/google/static"

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
"""For pages, where a consent ends. On a redirect they would cut off the product's popup."""
_HSTS = {"Strict-Transport-Security": "max-age=31536000"}

_RETRY_AFTER_SECONDS = 30
_LONG_ADDRESS = 15
"""Characters of an email address that fit into one line of the narrowest phone, 320 pixels wide."""

_URL_CHARACTERS = ":/%#?=@[]!$&'()*+,;"
"""Not encoded in a `Location`; other characters, such as an umlaut in `return_to`, are."""


class Tone(StrEnum):
    """The colours and the mark of a page."""

    GOOD = "good"
    CALM = "calm"
    """Nothing is wrong, and nothing happened."""
    TROUBLE = "trouble"


@dataclass(frozen=True, slots=True)
class MessagePage:
    """How a page of text is sent. Each language's catalogue has the text under the same key."""

    status: int
    tone: Tone = Tone.TROUBLE
    can_retry: bool = True
    """False if the same link cannot help."""


class FrameWords(Protocol):
    """The words of the frame itself."""

    @property
    def language(self) -> str:
        """BCP 47."""

    @property
    def site(self) -> str: ...

    @property
    def reference(self) -> str: ...


class StaticFiles:
    """The style sheets and the icon, read once and named by their content.

    They are served from memory: no path of a request reaches the disk.
    """

    media_types: Mapping[str, str] = {
        "style.css": "text/css",
        "connections.css": "text/css",
        "icon.svg": "image/svg+xml",
    }

    def __init__(self) -> None:
        folder = resources.files("broker.pages").joinpath("static")
        self._bodies = {name: folder.joinpath(name).read_bytes() for name in self.media_types}
        self._versions = {
            name: hashlib.sha256(body).hexdigest()[:12] for name, body in self._bodies.items()
        }

    def url(self, name: str) -> str:
        """Return the file's path, which changes with its content."""
        return f"{STATIC_PATH}/{name}?v={self._versions[name]}"

    def response(self, name: str, version: str | None) -> Response | None:
        """Return the file, cacheable for a year under the path of `url`. None for another name."""
        body = self._bodies.get(name)
        if body is None:
            return None
        for_a_year = "public, max-age=31536000, immutable"
        return Response(
            body,
            media_type=self.media_types[name],
            headers={
                "Cache-Control": for_a_year if version == self._versions[name] else "no-cache",
                "X-Content-Type-Options": "nosniff",
                "Cross-Origin-Resource-Policy": "same-origin",
            },
        )


class Frame:
    """Renders templates, and sets the headers of every response to a browser."""

    def __init__(self, redirect_uris: Iterable[str], package: str) -> None:
        """`package` contains the templates, beside those that all pages share."""
        self.static = StaticFiles()
        is_https = all(urlsplit(uri).scheme == "https" for uri in redirect_uris)
        self._headers = {**_HEADERS, **(_HSTS if is_https else {})}
        self.templates = _templates(package)

    def redirect(self, url: str) -> Response:
        """Return a 303: whatever the method was, the browser follows with GET."""
        return Response(
            status_code=303,
            headers={
                **self._headers,
                "Content-Security-Policy": _policy(()),
                "Location": quote(url, safe=_URL_CHARACTERS),
            },
        )

    def preview_response(self, request: Request) -> Response:
        """Return an empty response; 503 to a prefetch, or the browser would show it later."""
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
        text: PageText,
        page: MessagePage,
        *,
        words: FrameWords,
        status: int | None = None,
        link: tuple[str, str] | None = None,
        request_id: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """Return a page of text, with the URL and the name of a link if there is a next step.

        `status` replaces that of `page`.
        """
        status = page.status if status is None else status
        retry_after = {"Retry-After": str(_RETRY_AFTER_SECONDS)} if status == 503 else {}
        return self.page(
            "message.html",
            status,
            words=words,
            headers={**retry_after, **(headers or {})},
            tone=page.tone,
            text=text,
            link=link,
            # Users can quote it to the operator, where there is something to fix.
            reference=request_id if page.tone is Tone.TROUBLE else None,
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
        """Return a page. Its forms lead to this origin, and by redirects to `form_targets`."""
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
    """Compiled once per process, when a template is first rendered."""
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
    # Browsers apply `form-action` to every redirect that follows a form.
    return _POLICY.format(" ".join(("'self'", *form_targets)))


def filled(text: str, **values: str) -> Markup:
    """Return text with its `{places}` filled in; the values are escaped and isolated (`<bdi>`)."""
    place = Markup("<bdi>{}</bdi>")
    marked = {name: place.format(value) for name, value in values.items()}
    return Markup(escape(text)).format(**marked)  # noqa: S704  (the text is escaped here)


def breaking(address: str) -> Markup:
    """Return an email address; a long one may break at its dots and its @, not within a word."""
    if len(address) <= _LONG_ADDRESS:
        return escape(address)
    return escape(address).replace(".", Markup(".<wbr>")).replace("@", Markup("<wbr>@"))
