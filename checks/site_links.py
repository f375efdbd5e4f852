"""A hook of MkDocs for what Markdown on its own cannot say.

Links from docs/ to the rest of the tree lead to the source. `SOURCE_URL` is where that is, such as
`https://github.com/OWNER/REPOSITORY/blob/main`; without it they lead to the files of this checkout.
Diagrams are rendered when the site is built: see `checks.diagrams`.
"""

import os
import posixpath
import re
import sys
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[1]
_OUTWARD = re.compile(r"(?<=\]\()(?P<path>(?:\.\./)+[^)#\s]*)")


def on_config(config: Any) -> Any:
    """Called by MkDocs once: let the `mermaid` fence be formatted here."""
    sys.path.insert(0, str(_ROOT))  # The program `mkdocs` does not search the current folder.
    from checks.diagrams import fence  # noqa: PLC0415  (found only now)

    config["mdx_configs"]["pymdownx.superfences"] = {
        "custom_fences": [{"name": "mermaid", "class": "diagram", "format": fence}]
    }
    return config


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Called by MkDocs for each page."""
    source = os.environ.get("SOURCE_URL") or _ROOT.as_uri()
    return outward_links_to_source(
        markdown, folder=posixpath.dirname(page.file.src_uri), source=source
    )


def outward_links_to_source(markdown: str, *, folder: str, source: str) -> str:
    """Return the page with its links out of docs/ made absolute; `folder` is the page's own."""

    def replace(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join("docs", folder, match["path"]))
        if path.startswith("docs/"):
            return match["path"]
        return f"{source.rstrip('/')}/{path}"

    return _OUTWARD.sub(replace, markdown)
