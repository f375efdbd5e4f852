"""The demo page's routes: pick a user, connect, call the Calendar API, withdraw."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
from starlette.applications import Starlette
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from devstack.demo.broker_api import BrokerApi, BrokerRefusedError
from devstack.demo.calendar_api import CALENDAR_SCOPE, CalendarError, read_calendar
from devstack.demo.config import DemoConfig
from devstack.demo.notices import (
    Notice,
    back_home,
    forget_notice,
    notice_of,
    refusal_notice,
)
from devstack.demo.page import PAGES, USERS, Page, Reading

_USER_COOKIE = "demo_user"
_USER_NAME = re.compile(r"[\w.@+-]{1,64}")
_TIMEOUT_SECONDS = 15
_OUTCOMES = {
    "connected": Notice("good", "Google is connected"),
    "denied": Notice("bad", "Not connected", "Access was not allowed on Google's page."),
    "failed": Notice("bad", "Not connected", "Something went wrong on the way. Please try again."),
}


def create_app(
    config: DemoConfig,
    *,
    broker_transport: httpx2.AsyncBaseTransport | None = None,
    google_transport: httpx2.AsyncBaseTransport | None = None,
) -> Starlette:
    """Return the page as an ASGI application. The transports replace the network in tests."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[dict[str, httpx2.AsyncClient]]:
        async with (
            httpx2.AsyncClient(
                base_url=config.broker_url,
                headers={"Authorization": f"Bearer {config.broker_key.reveal()}"},
                timeout=_TIMEOUT_SECONDS,
                trust_env=False,
                transport=broker_transport,
            ) as broker,
            httpx2.AsyncClient(
                base_url=config.api_url, timeout=_TIMEOUT_SECONDS, transport=google_transport
            ) as google,
        ):
            yield {"broker": broker, "google": google}

    demo = _Demo(config)
    return Starlette(
        routes=[
            Route("/", demo.home),
            Route("/calendar", demo.calendar),
            Route("/connected", demo.connected),
            Route("/user", demo.choose_user, methods=["POST"]),
            Route("/connect", demo.connect, methods=["POST"]),
            Route("/withdraw", demo.withdraw, methods=["POST"]),
            Route("/manage", demo.manage, methods=["POST"]),
            Route("/livez", _alive),
            Mount("/assets", StaticFiles(directory=PAGES / "assets")),
        ],
        lifespan=lifespan,
    )


class _Demo:
    """The handlers: a form is answered with 303, a page with 200."""

    def __init__(self, config: DemoConfig) -> None:
        self._return_to = config.return_to
        self._page = Page(config)

    async def home(self, request: Request) -> Response:
        notice = notice_of(request)
        answer = await self._page.show(_user(request), _broker(request), notice=notice)
        if notice is not None:
            forget_notice(answer)
        return answer

    async def connected(self, request: Request) -> Response:
        """Handle `return_to`: redirect, so that the link's id leaves the address bar."""
        status = request.query_params.get("status")
        # The connections page returns here without a status.
        return back_home(_OUTCOMES.get(status, _OUTCOMES["failed"]) if status else None)

    async def calendar(self, request: Request) -> Response:
        broker, user = _broker(request), _user(request)
        account = request.query_params.get("account", "")
        try:
            token = await broker.token(user, account=account, scope=CALENDAR_SCOPE)
            calendar = await read_calendar(request.state.google, token.access_token)
        except BrokerRefusedError as refusal:
            return await self._page.show(user, broker, notice=refusal_notice(refusal))
        except CalendarError as error:
            notice = Notice("bad", "The Calendar API refused", f"It said: {error}.")
            return await self._page.show(user, broker, notice=notice)
        return await self._page.show(user, broker, reading=Reading(token.account.email, calendar))

    async def choose_user(self, request: Request) -> Response:
        name = str((await _own_form(request)).get("user", "")).strip()
        if not _USER_NAME.fullmatch(name):
            return back_home(
                Notice("bad", "That name won't do", "1 to 64 letters, digits and . @ + - _ here.")
            )
        answer = back_home()
        answer.set_cookie(_USER_COOKIE, name, httponly=True, samesite="lax")
        return answer

    async def connect(self, request: Request) -> Response:
        form = await _own_form(request)
        scopes = [str(scope) for scope in form.getlist("scope")]
        if not scopes:
            return back_home(Notice("bad", "Nothing to ask for", "Tick at least one box."))
        try:
            url = await _broker(request).connect_link(
                _user(request),
                scopes,
                return_to=self._return_to,
                login_hint=str(form.get("login_hint", "")) or None,
            )
        except BrokerRefusedError as refusal:
            return back_home(refusal_notice(refusal))
        return RedirectResponse(url, status_code=303, headers=self._page.headers)

    async def manage(self, request: Request) -> Response:
        """Redirect to the user's own page at the broker."""
        await _own_form(request)
        try:
            url = await _broker(request).connections_link(_user(request), return_to=self._return_to)
        except BrokerRefusedError as refusal:
            return back_home(refusal_notice(refusal))
        return RedirectResponse(url, status_code=303, headers=self._page.headers)

    async def withdraw(self, request: Request) -> Response:
        form = await _own_form(request)
        try:
            await _broker(request).withdraw(_user(request), account=str(form.get("account", "")))
        except BrokerRefusedError as refusal:
            return back_home(refusal_notice(refusal))
        email = str(form.get("email", ""))
        return back_home(
            Notice("good", "Access removed", f"No service gets a token for {email} any more.")
        )


async def _alive(_: Request) -> Response:
    return PlainTextResponse("ok")


def _broker(request: Request) -> BrokerApi:
    return BrokerApi(request.state.broker)


def _user(request: Request) -> str:
    name = request.cookies.get(_USER_COOKIE, "")
    return name if _USER_NAME.fullmatch(name) else USERS[0]


async def _own_form(request: Request) -> FormData:
    """Return the form. Refuse it if the browser says that another origin sent it."""
    if request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
        raise HTTPException(403, "This form belongs to another page.")
    return await request.form(max_fields=50, max_files=0)
