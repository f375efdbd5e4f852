"""Who comes with a link: a person's browser, which is shown a page, or a program, which is not.

Only what a request says of itself is looked at. It decides what is shown, never what is allowed.
"""

from starlette.requests import Request

from broker.pages.visitors import PREFETCH_HEADERS

VARY = ", ".join(("Accept-Language", "Accept", "User-Agent", "Sec-Fetch-Mode", *PREFETCH_HEADERS))
"""What the answer to a link depends on."""


def is_browser(request: Request) -> bool:
    """Whether a page is asked for, or the client calls itself a browser in any way."""
    headers = request.headers
    return (
        "text/html" in headers.get("accept", "").lower()
        or any(name.startswith("sec-fetch-") for name in headers)
        or headers.get("user-agent", "").startswith("Mozilla/")
    )
