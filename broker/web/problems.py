"""Refusals as RFC 9457 problems: one value for each code of the contract, and its HTTP form.

A `Problem` is both a value (a batch returns one per item) and an exception (a validator raises it).
It never carries a token, a secret or an email.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from starlette.responses import Response

PROBLEM_MEDIA_TYPE = "application/problem+json"
NO_STORE = {"Cache-Control": "no-store"}


@dataclass(eq=False)
class Problem(Exception):  # noqa: N818  (RFC 9457's own word for it)
    """One refusal. `code` is stable and meant for programs, `detail` for people."""

    status: int
    code: str
    title: str
    detail: str
    members: Mapping[str, Any] = field(default_factory=dict)
    retry_after: int | None = None
    """Seconds, sent as `Retry-After`."""
    challenge: str = "Bearer"
    """`WWW-Authenticate` of a 401."""

    def __str__(self) -> str:
        return f"{self.status} {self.code}: {self.detail}"

    def body(self, request_id: str | None = None) -> dict[str, Any]:
        """The problem's JSON object, as RFC 9457 §3.1 shapes it."""
        document: dict[str, Any] = {
            "type": f"urn:token-broker:problem:{self.code}",
            "title": self.title,
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
            **self.members,
        }
        if request_id is not None:
            document["request_id"] = request_id
        return document


def problem_response(problem: Problem, request_id: str | None = None) -> Response:
    """The HTTP answer for a problem, with the headers that its status demands."""
    headers = dict(NO_STORE)
    if problem.retry_after is not None:
        headers["Retry-After"] = str(problem.retry_after)
    if problem.status == 401:
        headers["WWW-Authenticate"] = problem.challenge
    return Response(
        json.dumps(problem.body(request_id), ensure_ascii=False).encode(),
        status_code=problem.status,
        headers=headers,
        media_type=PROBLEM_MEDIA_TYPE,
    )


def invalid_request(field_name: str, detail: str, *, status: int = 400) -> Problem:
    """Malformed input; `field_name` tells the caller where to look."""
    return Problem(
        status, "invalid_request", "The request is malformed", detail, {"field": field_name}
    )


def unauthenticated(detail: str = "No known credential came with this request.") -> Problem:
    """No credential, or one that nobody here holds; which of the two is not said."""
    return Problem(401, "unauthenticated", "Authentication is required", detail)


def invalid_token() -> Problem:
    """A JWT that proves nobody (RFC 6750 §3.1); why is in the operator's log, not here."""
    problem = unauthenticated("The JWT is expired, not meant for this service, or unknown here.")
    problem.challenge = 'Bearer error="invalid_token"'
    return problem


def issuer_unavailable(retry_after: int = 2) -> Problem:
    """Whose JWT this is can't be said, because its issuer's keys can't be had."""
    return Problem(
        503,
        "issuer_unavailable",
        "The issuer is unavailable",
        "The keys that this JWT would be verified with can't be had just now.",
        retry_after=retry_after,
    )


def forbidden(detail: str) -> Problem:
    """The caller is known and may not do this."""
    return Problem(403, "forbidden", "This caller may not do this", detail)


def scope_not_allowed(scopes: Iterable[str]) -> Problem:
    """The caller's policy, or the broker's own list, does not include these scopes."""
    names = sorted(scopes)
    return Problem(
        403,
        "scope_not_allowed",
        "A scope is not allowed",
        "Not allowed to this caller: " + " ".join(names),
        {"scopes": names},
    )


def grant_not_found(detail: str = "Nothing is connected for this user or account.") -> Problem:
    """No live grant; revoked ones count as nothing."""
    return Problem(404, "grant_not_found", "No such grant", detail)


def reauthorization_required(reason: str | None) -> Problem:
    """Google no longer honours the grant; only a new consent mends it."""
    return Problem(
        409,
        "reauthorization_required",
        "The user must consent again",
        "Google no longer honours this grant. Send the user through a new connect link.",
        {"reason": reason} if reason else {},
    )


def scope_not_granted(missing: Iterable[str]) -> Problem:
    """The user has not granted these scopes; a connect link for them continues the same grant."""
    names = sorted(missing)
    return Problem(
        409,
        "scope_not_granted",
        "The user has not granted a scope",
        "Missing: " + " ".join(names) + ". Ask for them with a new connect link.",
        {"missing": names},
    )


def confirmation_pending() -> Problem:
    """The consent is there, but the caller has not confirmed whose session it was."""
    return Problem(
        409,
        "confirmation_pending",
        "The grant is not confirmed",
        "Confirm the connect link with the code that came back with the browser.",
    )


def confirmation_invalid() -> Problem:
    """Nothing is confirmed; which of the reasons it was is not said."""
    return Problem(
        409,
        "confirmation_invalid",
        "This confirms nothing",
        "The code is wrong, used or expired, or the consent was withdrawn. Send the user through a "
        "new connect link.",
    )


def account_ambiguous() -> Problem:
    """Several accounts, no default, and the request named none."""
    return Problem(
        409,
        "account_ambiguous",
        "The user has several accounts",
        "Name one with `account`: a Google `sub` or email from this user's grants.",
    )


def rate_limited(
    retry_after: int, detail: str = "More requests than this caller may make just now."
) -> Problem:
    """Too much at once, of one caller or one address; others are not concerned."""
    return Problem(
        429, "rate_limited", "Too many requests", detail, retry_after=max(1, retry_after)
    )


def google_unavailable(retry_after: int, detail: str = "Google can't be reached.") -> Problem:
    """Google is slow, down or refusing for the time being; the grant is untouched."""
    return Problem(
        503,
        "google_unavailable",
        "Google is unavailable",
        detail,
        retry_after=retry_after,
    )


def storage_unavailable(retry_after: int = 2) -> Problem:
    """PostgreSQL can't be reached and nothing is held in memory for this request."""
    return Problem(
        503,
        "storage_unavailable",
        "Storage is unavailable",
        "The grants table can't be reached just now.",
        retry_after=retry_after,
    )


def client_misconfigured(retry_after: int = 30) -> Problem:
    """Google refuses the broker's own client: the operator's to mend, never the user's."""
    return Problem(
        503,
        "client_misconfigured",
        "The OAuth client is misconfigured",
        "Google refuses this broker's OAuth client. An operator has to mend it; no grant is lost.",
        retry_after=retry_after,
    )


def internal_error() -> Problem:
    """A defect of the broker; nothing about it is told."""
    return Problem(500, "internal_error", "Something broke", "The failure has been logged.")


def last_answer(problem: Problem, request_id: str) -> bytes:
    """The whole HTTP answer, for where no application is asked; the connection ends with it."""
    body = json.dumps(problem.body(request_id)).encode()
    lines = (
        f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}",
        f"content-type: {PROBLEM_MEDIA_TYPE}",
        f"content-length: {len(body)}",
        "cache-control: no-store",
        "x-content-type-options: nosniff",
        f"x-request-id: {request_id}",
        "connection: close",
        "",
        "",
    )
    return "\r\n".join(lines).encode() + body
