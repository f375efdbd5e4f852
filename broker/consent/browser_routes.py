"""The consent's routes on the public listener, and how its errors are shown.

A browser is redirected to two places only: to Google, and to a link's own `return_to`.
"""

import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from urllib.parse import unquote_plus, urlencode, urlsplit, urlunsplit

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from broker.consent.authorize import AuthorizeStep
from broker.consent.callback import CallbackStep, read_callback
from broker.consent.consent_outcomes import (
    AwaitingConfirmation,
    Connected,
    ConsentRefusal,
    ConsentResult,
    Interstitial,
    RedirectToGoogle,
)
from broker.consent.consent_pages import PROOF_FIELD, TranslatedPages
from broker.database.database import StorageUnavailable
from broker.pages.browser_input import is_from_own_page, read_cookies, read_form
from broker.pages.frame import STATIC_PATH
from broker.pages.user_agents import is_browser, is_preview
from broker.web.parameters import read_query, user_id_from
from broker.web.problems import Problem

logger = logging.getLogger(__name__)

AUTHORIZE_PATH = "/auth/google/authorize/{user_id}"
CALLBACK_PATH = "/auth/google/callback"

_RESULT_PARAMETERS = frozenset({"status", "link_id", "confirmation"})
"""Only the broker sets these in the query of a `return_to`."""

StepResult = Interstitial | RedirectToGoogle | ConsentResult | ConsentRefusal


def public_routes(
    authorize: AuthorizeStep,
    callback: CallbackStep,
    pages: TranslatedPages,
    own_origins: Collection[str],
) -> list[BaseRoute]:
    """Return the routes, for the public listener, which browsers reach under `own_origins`."""
    browser = BrowserRoutes(authorize, callback, pages, own_origins)
    return [
        Route(AUTHORIZE_PATH, browser.authorize, methods=["GET", "POST"]),
        Route(CALLBACK_PATH, browser.callback, methods=["GET"]),
        Route(STATIC_PATH + "/{name}", browser.static, methods=["GET"]),
    ]


class BrowserRoutes:
    """The handlers of the public listener."""

    def __init__(
        self,
        authorize: AuthorizeStep,
        callback: CallbackStep,
        pages: TranslatedPages,
        own_origins: Collection[str],
    ) -> None:
        self._authorize = authorize
        self._callback = callback
        self._pages = pages
        self._own_origins = own_origins

    async def authorize(self, request: Request) -> Response:
        """Show what a connect link asks for, or open it."""
        if is_preview(request):
            return self._pages.frame.preview_response(request)
        parameters = read_query(request.scope["query_string"])
        if parameters is None:
            return self._refused(request, ConsentRefusal.MALFORMED)
        try:
            user_id = user_id_from(request)
        except Problem:
            refusal = self._authorize.refuse(ConsentRefusal.LINK_NOT_OURS, _request_id(request))
            return self._refused(request, refusal)
        token = parameters.get("link", "")
        if request.method == "POST":
            return self._respond(request, await self._continue(request, token, user_id))
        step = self._authorize.show_interstitial if is_browser(request) else self._authorize.start
        result = await step(
            token, user_id=user_id, cookies=read_cookies(request), request_id=_request_id(request)
        )
        return self._respond(request, result)

    async def _continue(self, request: Request, token: str, user_id: str) -> StepResult:
        """Handle the interstitial's form."""
        form = await read_form(request)
        if form is None:
            return ConsentRefusal.MALFORMED
        if not is_from_own_page(request, self._own_origins):
            return self._authorize.refuse(ConsentRefusal.NOT_FROM_OUR_PAGE, _request_id(request))
        return await self._authorize.start_from_interstitial(
            token,
            user_id=user_id,
            cookies=read_cookies(request),
            unverified_proof=form.get(PROOF_FIELD, ""),
            request_id=_request_id(request),
        )

    async def callback(self, request: Request) -> Response:
        """Handle a browser's return from Google."""
        if is_preview(request):
            return self._pages.frame.preview_response(request)
        callback = read_callback(request.scope["query_string"])
        if callback is None:
            return self._refused(request, ConsentRefusal.MALFORMED)
        result = await self._callback.complete(
            callback, cookies=read_cookies(request), request_id=_request_id(request)
        )
        return self._respond(request, result)

    async def static(self, request: Request) -> Response:
        """Serve a file that pages use."""
        found = self._pages.frame.static.response(
            request.path_params["name"], request.query_params.get("v")
        )
        if found is None:
            raise HTTPException(404)
        return found

    def _respond(self, request: Request, result: StepResult) -> Response:
        if isinstance(result, ConsentRefusal):
            return self._refused(request, result)
        if isinstance(result, Interstitial | RedirectToGoogle):
            response = (
                self._pages.for_reader(request).interstitial(result)
                if isinstance(result, Interstitial)
                else self._pages.frame.redirect(result.url)
            )
            result.browser.set_cookie(response)
            return response
        if isinstance(result, AwaitingConfirmation):
            return self._pages.frame.redirect(return_url(result.return_to, result))
        if result.link.return_to is not None:
            return self._pages.frame.redirect(return_url(result.link.return_to, result))
        if isinstance(result, Connected):
            return self._pages.for_reader(request).connected(result)
        return self._pages.for_reader(request).not_connected(result, _request_id(request))

    def _refused(self, request: Request, refusal: ConsentRefusal) -> Response:
        return self._pages.for_reader(request).refused(refusal, _request_id(request))


def return_url(return_to: str, result: ConsentResult) -> str:
    """Return `return_to` with the result, and nothing else, added to its own query.

    That includes the confirmation code of a pending consent, which is for the server of that
    address. Parameters of these names in the listed address are dropped, so that no reader takes
    them for the result.
    """
    added = {"status": result.outcome.value, "link_id": str(result.link.id)}
    if isinstance(result, AwaitingConfirmation):
        added["confirmation"] = result.code.reveal()
    parts = urlsplit(return_to)
    kept = [
        each
        for each in parts.query.split("&")
        if each and unquote_plus(each.partition("=")[0]) not in _RESULT_PARAMETERS
    ]
    return urlunsplit(parts._replace(query="&".join([*kept, urlencode(added)])))


def _request_id(request: Request) -> str | None:
    return getattr(request.state, "request_id", None)


def public_handlers(
    pages: TranslatedPages,
) -> Mapping[type[Exception] | int, Callable[[Request, Exception], Awaitable[Response]]]:
    """Map every exception that can leave a public route to a page."""

    async def routing(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101  (registered for this type only)
        return pages.for_reader(request).error_page(
            error.status_code, request_id=_request_id(request), headers=error.headers
        )

    async def outage(request: Request, error: Exception) -> Response:
        assert isinstance(error, StorageUnavailable)  # noqa: S101  (registered for this type only)
        logger.warning(error.headline, extra={"event": error.event, "reason": str(error)})
        return pages.for_reader(request).error_page(503, request_id=_request_id(request))

    async def disconnect(request: Request, _error: Exception) -> Response:
        """The client sent half a form and is gone, or was cut off: the response is not read."""
        return pages.for_reader(request).error_page(400, request_id=_request_id(request))

    async def defect(request: Request, error: Exception) -> Response:
        logger.error(
            "a request failed unexpectedly",
            exc_info=error,
            extra={"event": "request_failed", "request_id": _request_id(request)},
        )
        return pages.for_reader(request).error_page(500, request_id=_request_id(request))

    return {
        HTTPException: routing,
        StorageUnavailable: outage,
        ClientDisconnect: disconnect,
        Exception: defect,
    }
