"""The public listener's part of the consent: what a browser may ask for, and what it is answered.

A browser is redirected to two places only: to Google, and to a link's own `return_to`.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import urlencode, urlsplit, urlunsplit

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from broker.consent.callbacks import read_callback, read_query
from broker.consent.flow import ConsentFlow
from broker.consent.outcomes import Connected, Departure, Ended, Refusal
from broker.consent.pages import TranslatedPages
from broker.database.database import StorageUnavailable
from broker.pages.static_files import STATIC_PATH
from broker.pages.visitors import is_only_looking
from broker.web.paths import user_id_from
from broker.web.problems import Problem

logger = logging.getLogger(__name__)

AUTHORIZE_PATH = "/auth/google/authorize/{user_id}"
CALLBACK_PATH = "/auth/google/callback"


def public_routes(flow: ConsentFlow, pages: TranslatedPages) -> list[BaseRoute]:
    """To be mounted on the public listener."""
    browser = BrowserRoutes(flow, pages)
    return [
        Route(AUTHORIZE_PATH, browser.authorize, methods=["GET"]),
        Route(CALLBACK_PATH, browser.callback, methods=["GET"]),
        Route(STATIC_PATH + "/{name}", browser.static, methods=["GET"]),
    ]


class BrowserRoutes:
    """Handlers of the public listener."""

    def __init__(self, flow: ConsentFlow, pages: TranslatedPages) -> None:
        self._flow = flow
        self._pages = pages

    async def authorize(self, request: Request) -> Response:
        """Open a connect link."""
        if is_only_looking(request):
            return self._pages.frame.looked_at(request)
        parameters = read_query(request.scope["query_string"])
        if parameters is None:
            return self._refused(request, Refusal.MALFORMED)
        try:
            user_id = user_id_from(request)
        except Problem:
            return self._refused(request, Refusal.LINK_NOT_OURS)
        result = await self._flow.depart(
            parameters.get("link", ""),
            user_id=user_id,
            cookies=request.cookies,
            request_id=_request_id(request),
        )
        return self._answer(request, result)

    async def callback(self, request: Request) -> Response:
        """Take a browser back from Google."""
        if is_only_looking(request):
            return self._pages.frame.looked_at(request)
        callback = read_callback(request.scope["query_string"])
        if callback is None:
            return self._refused(request, Refusal.MALFORMED)
        result = await self._flow.arrive(
            callback, cookies=request.cookies, request_id=_request_id(request)
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

    def _answer(self, request: Request, result: Departure | Ended | Refusal) -> Response:
        if isinstance(result, Departure):
            response = self._pages.frame.redirect(result.url)
            result.browser.remember(response)
            return response
        if isinstance(result, Refusal):
            return self._refused(request, result)
        if result.link.return_to is not None:
            return self._pages.frame.redirect(return_url(result.link.return_to, result))
        if isinstance(result, Connected):
            return self._pages.for_reader(request).connected(result)
        return self._pages.for_reader(request).not_connected(result, _request_id(request))

    def _refused(self, request: Request, refusal: Refusal) -> Response:
        return self._pages.for_reader(request).refused(refusal, _request_id(request))


def return_url(return_to: str, ended: Ended) -> str:
    """`return_to` with how it ended, and nothing else, added to the query that it has."""
    added = urlencode({"status": ended.outcome.value, "link_id": str(ended.link.id)})
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
        logger.warning("storage is away", extra={"reason": str(error)})
        return pages.for_reader(request).error_page(503, request_id=_request_id(request))

    async def defect(request: Request, error: Exception) -> Response:
        logger.error(
            "a request failed unexpectedly",
            exc_info=error,
            extra={"request_id": _request_id(request)},
        )
        return pages.for_reader(request).error_page(500, request_id=_request_id(request))

    return {HTTPException: routing, StorageUnavailable: outage, Exception: defect}
