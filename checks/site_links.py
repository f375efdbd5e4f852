"""A hook of MkDocs: links from docs/ to the rest of the tree lead to the source, on the site.

`SOURCE_URL` is where that is, such as `https://github.com/OWNER/REPOSITORY/blob/main`; without it
they lead to the files of this checkout, for who reads the site on the machine that built it.
"""

import os
import posixpath
import re
from pathlib import Path
from typing import Any

_CHECKOUT = Path(__file__).resolve().parents[1].as_uri()
_OUTWARD = re.compile(r"(?<=\]\()(?P<path>(?:\.\./)+[^)#\s]*)")


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Called by MkDocs for each page."""
    source = os.environ.get("SOURCE_URL") or _CHECKOUT
    return outward_links_to_source(
        markdown, folder=posixpath.dirname(page.file.src_uri), source=source
    )


def outward_links_to_source(markdown: str, *, folder: str, source: str) -> str:
    """`folder` is the page's, below docs/."""

    def replace(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join("docs", folder, match["path"]))
        if path.startswith("docs/"):
            return match["path"]
        return f"{source.rstrip('/')}/{path}"

    return _OUTWARD.sub(replace, markdown)
