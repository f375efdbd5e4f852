"""The stand-in as an ASGI application: its paths and their endpoints."""

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from devstack.google_standin import pages
from devstack.google_standin.account_endpoints import AccountEndpoints
from devstack.google_standin.calendar import CalendarApi
from devstack.google_standin.consent_pages import (
    ACCOUNT_PATH,
    AUTHORIZE_PATH,
    CONSENT_PATH,
    ConsentPages,
)
from devstack.google_standin.context import StandinContext
from devstack.google_standin.control import control_routes
from devstack.google_standin.endpoints import Endpoint, Handler, OpenConnections
from devstack.google_standin.risc_api import RiscApi
from devstack.google_standin.token_endpoint import TokenEndpoint

DISCOVERY_PATH = "/.well-known/openid-configuration"
RISC_PATH = "/.well-known/risc-configuration"


def build_app(context: StandinContext, connections: OpenConnections) -> Starlette:
    """Return the application: Google's own paths, the style sheet, and `/_control`."""
    account, calendar, consent = (
        AccountEndpoints(context),
        CalendarApi(context),
        ConsentPages(context),
    )

    risc = RiscApi(context)

    def route(path: str, name: str, handler: Handler, *methods: str) -> Route:
        return Route(path, Endpoint(name, handler, context, connections), methods=list(methods))

    routes: list[BaseRoute] = [
        route(DISCOVERY_PATH, "discovery", account.discovery, "GET"),
        route("/oauth2/v3/certs", "jwks", account.jwks, "GET"),
        route(AUTHORIZE_PATH, "authorize", consent.authorize, "GET"),
        Route(ACCOUNT_PATH, consent.choose_account, methods=["POST"]),
        Route(CONSENT_PATH, consent.consent, methods=["GET", "POST"]),
        route("/token", "token", TokenEndpoint(context), "POST"),
        route("/revoke", "revoke", account.revoke, "POST"),
        route("/v1/userinfo", "userinfo", account.userinfo, "GET", "POST"),
        route("/tokeninfo", "tokeninfo", account.tokeninfo, "GET", "POST"),
        route("/oauth2/v3/tokeninfo", "tokeninfo", account.tokeninfo, "GET", "POST"),
        route(RISC_PATH, "risc_configuration", risc.configuration, "GET"),
        route("/v1beta/stream", "risc", risc.stream, "GET"),
        route("/v1beta/stream:update", "risc", risc.update, "POST"),
        route("/v1beta/stream:verify", "risc", risc.verify, "POST"),
        route("/v1beta/stream/status", "risc", risc.status, "GET"),
        route("/v1beta/stream/status:update", "risc", risc.update_status, "POST"),
        Route(pages.STYLE_PATH, _style),
        *control_routes(context),
    ]
    # Google's client accepts an endpoint with or without the service's path.
    for prefix in ("/calendar/v3", ""):
        events = prefix + "/calendars/{calendar_id}/events"
        lists = prefix + "/users/me/calendarList"
        routes += [
            route(lists, "calendar", calendar.calendar_list, "GET"),
            route(events, "calendar", calendar.list_events, "GET"),
            route(events, "calendar", calendar.insert_event, "POST"),
        ]
    return Starlette(routes=routes)


async def _style(request: Request) -> Response:
    return Response(pages.STYLE, media_type="text/css", headers={"Cache-Control": "no-cache"})
