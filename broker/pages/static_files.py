"""The style sheet and icon of the pages, served from memory; no path ever reaches the disk."""

import hashlib
from collections.abc import Mapping
from importlib import resources

from starlette.responses import Response

STATIC_PATH = "/auth/google/static"


class StaticFiles:
    """The few files that pages use, read once and named by their content."""

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
        """Its address; changes with its content."""
        return f"{STATIC_PATH}/{name}?v={self._versions[name]}"

    def response(self, name: str, version: str | None) -> Response | None:
        """The file, kept for good under the address that `url` gives; nothing for another name."""
        body = self._bodies.get(name)
        if body is None:
            return None
        for_good = "public, max-age=31536000, immutable"
        return Response(
            body,
            media_type=self.media_types[name],
            headers={
                "Cache-Control": for_good if version == self._versions[name] else "no-cache",
                "X-Content-Type-Options": "nosniff",
                "Cross-Origin-Resource-Policy": "same-origin",
            },
        )
