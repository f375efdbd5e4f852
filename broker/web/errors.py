"""Maps every exception that an internal or ops route can raise to a problem."""

import logging
from collections.abc import Awaitable, Callable, Mapping

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from broker.database.database import StorageUnavailable
from broker.web.problems import Problem, internal_error, problem_response, storage_unavailable

logger = logging.getLogger(__name__)

ExceptionHandler = Callable[[Request, Exception], Awaitable[Response]]

_ROUTING_PROBLEMS = {
    404: Problem(404, "not_found", "No such resource", "This path does not exist."),
    405: Problem(
        405,
        "method_not_allowed",
        "Method not allowed",
        "This path does not support the method; see Allow.",
    ),
}


def count_failed_request(request: Request, problem: Problem) -> None:
    """Count a request that fails through no fault of its sender, if its route counts those."""
    count: Callable[[str], None] | None = getattr(request.state, "count_failure", None)
    if count is not None:
        count(problem.code)


async def _answer_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)  # noqa: S101  (registered for this type only)
    return problem_response(error, request.state.request_id)


async def _answer_routing(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101  (registered for this type only)
    problem = _ROUTING_PROBLEMS.get(
        error.status_code,
        Problem(
            error.status_code,
            "invalid_request",
            "The request is malformed",
            "The broker refuses this request.",
        ),
    )
    response = problem_response(problem, request.state.request_id)
    for name, value in (error.headers or {}).items():
        response.headers[name] = value
    return response


async def _answer_outage(request: Request, error: Exception) -> Response:
    assert isinstance(error, StorageUnavailable)  # noqa: S101  (registered for this type only)
    logger.warning(error.headline, extra={"event": error.event, "reason": str(error)})
    problem = storage_unavailable()
    count_failed_request(request, problem)
    return problem_response(problem, request.state.request_id)


async def _answer_disconnect(_request: Request, _error: Exception) -> Response:
    """The client has gone; no one reads the response."""
    return Response(status_code=400)


async def _answer_defect(request: Request, error: Exception) -> Response:
    logger.error(
        "a request failed unexpectedly",
        exc_info=error,
        extra={"event": "request_failed", "request_id": request.state.request_id},
    )
    problem = internal_error()
    count_failed_request(request, problem)
    return problem_response(problem, request.state.request_id)


ExceptionHandlers = Mapping[type[Exception] | int, ExceptionHandler]

INTERNAL_HANDLERS: ExceptionHandlers = {
    Problem: _answer_problem,
    HTTPException: _answer_routing,
    StorageUnavailable: _answer_outage,
    ClientDisconnect: _answer_disconnect,
    Exception: _answer_defect,
}
