"""Puts a listener's routes and exception handlers into an ASGI application."""

from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from broker.app.process_context import ProcessContext
from broker.server.fast_path import FastPath
from broker.server.listener import Listener
from broker.web.errors import ExceptionHandlers


def routed_app(routes: Sequence[BaseRoute], handlers: ExceptionHandlers) -> Starlette:
    """Return the application behind a listener."""
    app = Starlette(routes=routes, exception_handlers=handlers)
    # A redirect to the path with or without its last slash would be built from the Host header.
    app.router.redirect_slashes = False
    return app


def listener_app(
    context: ProcessContext,
    name: str,
    app: ASGIApp,
    *,
    fast_path: FastPath | None = None,
    is_for_browsers: bool = False,
) -> Listener:
    """Return a listener's outermost application."""
    return Listener(
        name,
        app,
        metrics=context.metrics,
        request_ids=context.request_ids,
        fast_path=fast_path,
        # A browser has no credential, and an attacker could invent one for each request.
        fairness_key=context.addresses.of if is_for_browsers else None,
        is_for_browsers=is_for_browsers,
    )
