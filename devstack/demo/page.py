"""The demo's only page: its content and its headers."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
from starlette.responses import HTMLResponse, Response

from devstack.demo import words
from devstack.demo.broker_api import BrokerApi, BrokerRefusedError, Grant, Token
from devstack.demo.calendar_api import Calendar
from devstack.demo.config import DemoConfig
from devstack.demo.notices import Notice, refusal_notice

PAGES = Path(__file__).parent / "pages"
USERS = ("alice", "bob", "carol")


@dataclass(frozen=True, slots=True)
class Connection:
    """One grant, with its token or the reason why there is none."""

    grant: Grant
    token: Token | None = None
    refusal: BrokerRefusedError | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """The Calendar API's answer for one account."""

    email: str
    calendar: Calendar


class Page:
    """Renders the page from the broker's current answers."""

    def __init__(self, config: DemoConfig) -> None:
        self._scopes = config.scopes
        self._template = _environment().get_template("demo.html")
        self.headers = {
            "Cache-Control": "no-store",
            "Content-Security-Policy": _policy(config.consent_origins),
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        }

    async def show(
        self,
        user: str,
        broker: BrokerApi,
        *,
        notice: Notice | None = None,
        reading: Reading | None = None,
    ) -> Response:
        """Render the page for one user. A refusal of the broker is shown, not raised."""
        connections: list[Connection] = []
        try:
            grants = await broker.grants(user)
            connections = [await _connection(broker, user, grant) for grant in grants]
        except BrokerRefusedError as refusal:
            notice = notice or refusal_notice(refusal)
        page = self._template.render(
            user=user,
            users=USERS if user in USERS else (*USERS, user),
            notice=notice,
            connections=connections,
            reading=reading,
            scopes=self._scopes,
            calls=broker.calls,
        )
        return HTMLResponse(page, headers=self.headers)


async def _connection(broker: BrokerApi, user: str, grant: Grant) -> Connection:
    if grant.status != "active":
        return Connection(grant)
    try:
        return Connection(grant, token=await broker.token(user, account=grant.account.sub))
    except BrokerRefusedError as refusal:
        return Connection(grant, refusal=refusal)


def _policy(consent_origins: Sequence[str]) -> str:
    """Return a policy that allows only the page's own style sheet and images.

    Browsers apply `form-action` to every redirect after a form, so it includes the way to Google
    and back.
    """
    form_action = " ".join(("'self'", *consent_origins))
    return (
        "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; "
        f"frame-ancestors 'none'; form-action {form_action}"
    )


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(PAGES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["words"] = words
    return environment
