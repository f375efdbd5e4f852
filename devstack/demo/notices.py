"""One-time notices, which a cookie carries over a redirect."""

import base64
import json
from dataclasses import asdict, dataclass
from typing import Literal

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from devstack.demo.broker_api import BrokerRefusedError

_COOKIE = "demo_notice"
_LIFE_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Notice:
    """A notice at the top of the page."""

    kind: Literal["good", "bad"]
    title: str
    detail: str = ""
    code: str = ""


def refusal_notice(refusal: BrokerRefusedError) -> Notice:
    """Return the broker's problem as a notice."""
    return Notice("bad", refusal.title, refusal.detail, refusal.code or "")


def back_home(notice: Notice | None = None) -> RedirectResponse:
    """Redirect to the page after a POST, so that a reload repeats nothing."""
    answer = RedirectResponse("/", status_code=303, headers={"Cache-Control": "no-store"})
    if notice is not None:
        packed = base64.urlsafe_b64encode(json.dumps(asdict(notice)).encode()).decode()
        answer.set_cookie(_COOKIE, packed, max_age=_LIFE_SECONDS, httponly=True, samesite="lax")
    return answer


def notice_of(request: Request) -> Notice | None:
    """Return the notice of the redirect before this request; a malformed cookie is ignored."""
    try:
        unpacked = json.loads(base64.urlsafe_b64decode(request.cookies.get(_COOKIE, "")))
        notice = Notice(**unpacked)
    except (ValueError, TypeError):
        return None
    texts = (notice.title, notice.detail, notice.code)
    well_formed = notice.kind in ("good", "bad") and all(isinstance(text, str) for text in texts)
    return notice if well_formed else None


def forget_notice(answer: Response) -> None:
    """Delete the cookie: a notice is shown once."""
    answer.delete_cookie(_COOKIE, httponly=True, samesite="lax")
