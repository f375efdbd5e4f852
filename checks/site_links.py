"""A hook of MkDocs: links from docs/ to the rest of the tree lead to the source, on the site.

`SOURCE_URL` is where that is, such as `https://github.com/…/blob/main`; without it they lead to the
same path beside the site.
"""

import os
import posixpath
import re
from typing import Any

_OUTWARD = re.compile(r"(?<=\]\()(?P<path>(?:\.\./)+[^)#\s]*)")


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Called by MkDocs for each page."""
    return outward_links_to_source(
        markdown, folder=posixpath.dirname(page.file.src_uri), source=os.environ.get("SOURCE_URL")
    )


def outward_links_to_source(markdown: str, *, folder: str, source: str | None) -> str:
    """`folder` is the page's, below docs/."""

    def replace(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join("docs", folder, match["path"]))
        if path.startswith("docs/"):
            return match["path"]
        return f"{(source or 'https://example.com').rstrip('/')}/{path}"

    return _OUTWARD.sub(replace, markdown)
