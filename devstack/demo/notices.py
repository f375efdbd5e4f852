"""What has just happened, carried over one redirect in a cookie of its own."""

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
    """A line or two above all else on the page."""

    kind: Literal["good", "bad"]
    title: str
    detail: str = ""
    code: str = ""


def refusal_notice(refusal: BrokerRefusedError) -> Notice:
    """The broker's problem, in its own words."""
    return Notice("bad", refusal.title, refusal.detail, refusal.code or "")


def back_home(notice: Notice | None = None) -> RedirectResponse:
    """Where every POST ends: reloading the page then repeats nothing."""
    answer = RedirectResponse("/", status_code=303, headers={"Cache-Control": "no-store"})
    if notice is not None:
        packed = base64.urlsafe_b64encode(json.dumps(asdict(notice)).encode()).decode()
        answer.set_cookie(_COOKIE, packed, max_age=_LIFE_SECONDS, httponly=True, samesite="lax")
    return answer


def waiting_notice(request: Request) -> Notice | None:
    """What the redirect before this request carried. A cookie that isn't ours is ignored."""
    try:
        unpacked = json.loads(base64.urlsafe_b64decode(request.cookies.get(_COOKIE, "")))
        notice = Notice(**unpacked)
    except (ValueError, TypeError):
        return None
    texts = (notice.title, notice.detail, notice.code)
    well_formed = notice.kind in ("good", "bad") and all(isinstance(text, str) for text in texts)
    return notice if well_formed else None


def forget_notice(answer: Response) -> None:
    """Shown once."""
    answer.delete_cookie(_COOKIE, httponly=True, samesite="lax")
