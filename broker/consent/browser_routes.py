"""The public listener's part of the consent: what a browser may ask for, and what it is answered.

A browser is redirected to two places only: to Google, and to a link's own `return_to`.
"""

import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from urllib.parse import urlencode, urlsplit, urlunsplit

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from broker.consent.callbacks import read_callback, read_query
from broker.consent.flow import ConsentFlow
from broker.consent.leaving import PROOF_FIELD, leaving_page
from broker.consent.outcomes import Connected, Departure, Ended, Leaving, Refusal, Waiting
from broker.consent.pages import TranslatedPages
from broker.consent.visitors import is_browser
from broker.database.database import StorageUnavailable
from broker.pages.cookies import cookies_of
from broker.pages.forms import is_from_own_page, read_form
from broker.pages.static_files import STATIC_PATH
from broker.pages.visitors import is_only_looking
from broker.web.paths import user_id_from
from broker.web.problems import Problem

logger = logging.getLogger(__name__)

AUTHORIZE_PATH = "/auth/google/authorize/{user_id}"
CALLBACK_PATH = "/auth/google/callback"


def public_routes(
    flow: ConsentFlow, pages: TranslatedPages, own_origins: Collection[str]
) -> list[BaseRoute]:
    """To be mounted on the public listener, which browsers know under `own_origins`."""
    browser = BrowserRoutes(flow, pages, own_origins)
    return [
        Route(AUTHORIZE_PATH, browser.authorize, methods=["GET", "POST"]),
        Route(CALLBACK_PATH, browser.callback, methods=["GET"]),
        Route(STATIC_PATH + "/{name}", browser.static, methods=["GET"]),
    ]


class BrowserRoutes:
    """Handlers of the public listener."""

    def __init__(
        self, flow: ConsentFlow, pages: TranslatedPages, own_origins: Collection[str]
    ) -> None:
        self._flow = flow
        self._pages = pages
        self._own_origins = own_origins

    async def authorize(self, request: Request) -> Response:
        """Show what a connect link is about, or open it."""
        if is_only_looking(request):
            return self._pages.frame.looked_at(request)
        parameters = read_query(request.scope["query_string"])
        if parameters is None:
            return self._refused(request, Refusal.MALFORMED)
        try:
            user_id = user_id_from(request)
        except Problem:
            refusal = self._flow.departures.refuse(Refusal.LINK_NOT_OURS, _request_id(request))
            return self._refused(request, refusal)
        token = parameters.get("link", "")
        if request.method == "POST":
            return self._answer(request, await self._go_on(request, token, user_id))
        departures = self._flow.departures
        step = departures.look if is_browser(request) else departures.depart
        result = await step(
            token, user_id=user_id, cookies=cookies_of(request), request_id=_request_id(request)
        )
        return self._answer(request, result)

    async def _go_on(
        self, request: Request, token: str, user_id: str
    ) -> Leaving | Departure | Ended | Refusal:
        """Go on from the page before."""
        form = await read_form(request)
        if form is None:
            return Refusal.MALFORMED
        if not is_from_own_page(request, self._own_origins):
            refusal = Refusal.NOT_FROM_OUR_PAGE
            return self._flow.departures.refuse(refusal, _request_id(request))
        return await self._flow.departures.depart_from_page(
            token,
            user_id=user_id,
            cookies=cookies_of(request),
            unverified_proof=form.get(PROOF_FIELD, ""),
            request_id=_request_id(request),
        )

    async def callback(self, request: Request) -> Response:
        """Take a browser back from Google."""
        if is_only_looking(request):
            return self._pages.frame.looked_at(request)
        callback = read_callback(request.scope["query_string"])
        if callback is None:
            return self._refused(request, Refusal.MALFORMED)
        result = await self._flow.arrive(
            callback, cookies=cookies_of(request), request_id=_request_id(request)
        )
        return self._answer(request, result)

    async def static(self, request: Request) -> Response:
        """A file that pages use."""
        found = self._pages.frame.static.response(
            request.path_params["name"], request.query_params.get("v")
        )
        if found is None:
            raise HTTPException(404)
        return found

    def _answer(self, request: Request, result: Leaving | Departure | Ended | Refusal) -> Response:
        if isinstance(result, Refusal):
            return self._refused(request, result)
        if isinstance(result, Leaving | Departure):
            response = (
                leaving_page(self._pages.for_reader(request), result)
                if isinstance(result, Leaving)
                else self._pages.frame.redirect(result.url)
            )
            result.browser.remember(response)
            return response
        if isinstance(result, Waiting):
            return self._pages.frame.redirect(return_url(result.return_to, result))
        if result.link.return_to is not None:
            return self._pages.frame.redirect(return_url(result.link.return_to, result))
        if isinstance(result, Connected):
            return self._pages.for_reader(request).connected(result)
        return self._pages.for_reader(request).not_connected(result, _request_id(request))

    def _refused(self, request: Request, refusal: Refusal) -> Response:
        return self._pages.for_reader(request).refused(refusal, _request_id(request))


def return_url(return_to: str, ended: Ended) -> str:
    """`return_to` with how it ended, and nothing else, added to the query that it has.

    The code of a consent that waits is among it: it is for whoever serves that address.
    """
    how = {"status": ended.outcome.value, "link_id": str(ended.link.id)}
    if isinstance(ended, Waiting):
        how["confirmation"] = ended.code.reveal()
    added = urlencode(how)
    parts = urlsplit(return_to)
    query = f"{parts.query}&{added}" if parts.query else added
    return urlunsplit(parts._replace(query=query))


def _request_id(request: Request) -> str | None:
    return getattr(request.state, "request_id", None)


def public_handlers(
    pages: TranslatedPages,
) -> Mapping[type[Exception] | int, Callable[[Request, Exception], Awaitable[Response]]]:
    """Maps every exception that can leave a public route to a page."""

    async def routing(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101  (registered for this type only)
        return pages.for_reader(request).error_page(
            error.status_code, request_id=_request_id(request), headers=error.headers
        )

    async def outage(request: Request, error: Exception) -> Response:
        assert isinstance(error, StorageUnavailable)  # noqa: S101  (registered for this type only)
        logger.warning(error.headline, extra={"reason": str(error)})
        return pages.for_reader(request).error_page(503, request_id=_request_id(request))

    async def disconnect(request: Request, _error: Exception) -> Response:
        """Nobody is there to read it: whoever sent half a form has gone, or was cut off."""
        return pages.for_reader(request).error_page(400, request_id=_request_id(request))

    async def defect(request: Request, error: Exception) -> Response:
        logger.error(
            "a request failed unexpectedly",
            exc_info=error,
            extra={"request_id": _request_id(request)},
        )
        return pages.for_reader(request).error_page(500, request_id=_request_id(request))

    return {
        HTTPException: routing,
        StorageUnavailable: outage,
        ClientDisconnect: disconnect,
        Exception: defect,
    }
