"""Templates and style sheet of the stand-in's pages, which need no script."""

from pathlib import Path
from typing import Any
from zlib import crc32

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from devstack.google_standin.scopes import IDENTITY, plain_words, short_name

__all__ = ["HEADERS", "IDENTITY", "STYLE", "STYLE_PATH", "render"]

_FOLDER = Path(__file__).parent
STYLE_PATH = "/_standin/standin.css"
STYLE = (_FOLDER / "standin.css").read_text(encoding="utf-8")

HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    # No form-action: browsers apply it to the redirect to the app, too.
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src data:; "
    "base-uri 'none'; frame-ancestors 'none'",
}

_environment = Environment(
    loader=FileSystemLoader(_FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True
)
_environment.filters["plain_words"] = plain_words
_environment.filters["short_name"] = short_name
_environment.filters["hue"] = lambda sub: crc32(sub.encode()) % 6
_environment.globals["style_path"] = STYLE_PATH


def render(template: str, **values: Any) -> str:
    """Render a page; every value is escaped."""
    return _environment.get_template(template).render(**values)
