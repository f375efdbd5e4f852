"""The HTTP answer to each refusal of the gate: one table."""

from collections.abc import Callable, Mapping

from starlette.requests import Request
from starlette.responses import Response

from broker.backoff import retry_after
from broker.callers.refusals import AccessRefused, RefusalReason
from broker.web.errors import ExceptionHandlers
from broker.web.problems import (
    Problem,
    forbidden,
    invalid_request,
    invalid_token,
    issuer_unavailable,
    problem_response,
    rate_limited,
    unauthenticated,
)


def problem_of(refused: AccessRefused) -> Problem:
    """Return the problem of the contract that answers a refusal."""
    return _PROBLEMS[refused.reason](refused)


def _rate_limited(detail: str) -> Callable[[AccessRefused], Problem]:
    return lambda refused: rate_limited(retry_after(refused.retry_after_seconds), detail)


_PROBLEMS: Mapping[RefusalReason, Callable[[AccessRefused], Problem]] = {
    RefusalReason.CREDENTIAL_IN_URL: lambda _: invalid_request(
        "access_token", "Send the credential as Authorization: Bearer."
    ),
    RefusalReason.PARAMETERS_IN_URL: lambda _: invalid_request(
        "query", "Send the parameters in the body, none in the URL."
    ),
    RefusalReason.UNAUTHENTICATED: lambda _: unauthenticated(),
    RefusalReason.INVALID_JWT: lambda _: invalid_token(),
    RefusalReason.ISSUER_UNAVAILABLE: lambda _: issuer_unavailable(),
    RefusalReason.PERMISSION_MISSING: lambda refused: forbidden(
        f"This caller's policy does not include {refused.permission}."
    ),
    RefusalReason.SUBJECT_REQUIRED: lambda _: forbidden(
        "This caller gets tokens only in exchange for the user's own JWT: POST /oauth/token."
    ),
    RefusalReason.USER_NOT_ALLOWED: lambda _: forbidden(
        "This caller's policy does not include this user."
    ),
    RefusalReason.RATE_LIMIT: lambda refused: rate_limited(
        retry_after(refused.retry_after_seconds)
    ),
    RefusalReason.CONCURRENCY_LIMIT: _rate_limited(
        "Too many requests of this caller are in progress."
    ),
    RefusalReason.FAILED_AUTHENTICATIONS: _rate_limited(
        "Too many failed authentications from this address."
    ),
    RefusalReason.FORM_LIMIT: _rate_limited("Too many request bodies are still being received."),
}


async def _answer_refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, AccessRefused)  # noqa: S101  (registered for this type only)
    return problem_response(problem_of(error), request.state.request_id)


REFUSAL_HANDLERS: ExceptionHandlers = {AccessRefused: _answer_refused}
"""Exception handlers of every listener whose routes pass the gate."""
