"""RFC 9457 problems: a function per problem code, and the HTTP response.

A `Problem` is both a value (a batch returns one per item) and an exception (a validator raises it).
It never contains a token, a secret or an email address.
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
class Problem(Exception):  # noqa: N818  (the term of RFC 9457)
    """A refusal or failure. `code` is stable and for programs, `detail` is for people."""

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
        """Return the JSON object (RFC 9457 §3.1)."""
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
    """Return the HTTP response, with the headers that its status requires."""
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
    """The input is malformed; `field_name` shows where."""
    return Problem(
        status, "invalid_request", "The request is malformed", detail, {"field": field_name}
    )


def unauthenticated(
    detail: str = "The request has no known credential.", *, challenge: str = "Bearer"
) -> Problem:
    """The credential is missing or unknown; the response does not say which."""
    return Problem(
        401, "unauthenticated", "Authentication is required", detail, challenge=challenge
    )


def invalid_token() -> Problem:
    """The JWT is invalid (RFC 6750 §3.1). Only the operator's log has the reason."""
    return unauthenticated(
        "The JWT is expired, is not meant for this service, or is not trusted.",
        challenge='Bearer error="invalid_token"',
    )


def issuer_unavailable(retry_after: int = 2) -> Problem:
    """The issuer's keys are unavailable, so the JWT can't be verified."""
    return Problem(
        503,
        "issuer_unavailable",
        "The issuer is unavailable",
        "The issuer's signing keys are temporarily unavailable, so this JWT can't be verified.",
        retry_after=retry_after,
    )


def forbidden(detail: str) -> Problem:
    """The caller is authenticated and its policy forbids the request."""
    return Problem(403, "forbidden", "The caller may not do this", detail)


def scope_not_allowed(scopes: Iterable[str]) -> Problem:
    """These scopes are not in the caller's policy, or not in GOOGLE_SCOPES."""
    names = sorted(scopes)
    return Problem(
        403,
        "scope_not_allowed",
        "A scope is not allowed",
        "The caller's policy does not allow: " + " ".join(names),
        {"scopes": names},
    )


def grant_not_found(detail: str = "This user has no grant, or none for this account.") -> Problem:
    """The user has no grant that is not revoked."""
    return Problem(404, "grant_not_found", "No such grant", detail)


def reauthorization_required(reason: str | None) -> Problem:
    """Google no longer accepts the refresh token; only a new consent fixes that."""
    return Problem(
        409,
        "reauthorization_required",
        "The user must consent again",
        "Google no longer accepts this grant. Send the user through a new connect link.",
        {"reason": reason} if reason else {},
    )


def scope_not_granted(missing: Iterable[str]) -> Problem:
    """The user has not granted these scopes. A connect link for them extends the same grant."""
    names = sorted(missing)
    return Problem(
        409,
        "scope_not_granted",
        "The user has not granted a scope",
        "Missing: " + " ".join(names) + ". Request them with a new connect link.",
        {"missing": names},
    )


def confirmation_pending() -> Problem:
    """The consent is pending: the caller has not confirmed the browser session."""
    return Problem(
        409,
        "confirmation_pending",
        "The grant is not confirmed",
        "Confirm the consent with the one-time code from the browser's return URL.",
    )


def confirmation_invalid() -> Problem:
    """The confirmation failed; the response does not say for which reason."""
    return Problem(
        409,
        "confirmation_invalid",
        "Invalid confirmation code",
        "The code is wrong, used or expired, or the consent was revoked. Send the user through a "
        "new connect link.",
    )


def account_ambiguous() -> Problem:
    """The user has several accounts and no default, and the request names none."""
    return Problem(
        409,
        "account_ambiguous",
        "The user has several accounts",
        "Name one with `account`: a Google `sub` or email from this user's grants.",
    )


def rate_limited(retry_after: int, detail: str = "The caller exceeds its rate limit.") -> Problem:
    """One caller or address exceeds its limit; others are not affected."""
    return Problem(
        429, "rate_limited", "Too many requests", detail, retry_after=max(1, retry_after)
    )


def google_unavailable(retry_after: int, detail: str = "Google can't be reached.") -> Problem:
    """Google is slow, down or refuses temporarily; the grant is unchanged."""
    return Problem(
        503,
        "google_unavailable",
        "Google is unavailable",
        detail,
        retry_after=retry_after,
    )


def storage_unavailable(retry_after: int = 2) -> Problem:
    """PostgreSQL is unavailable and no cached token answers the request."""
    return Problem(
        503,
        "storage_unavailable",
        "Storage is unavailable",
        "The broker's database is temporarily unavailable.",
        retry_after=retry_after,
    )


def client_misconfigured(retry_after: int = 30) -> Problem:
    """Google rejects the broker's OAuth client. The operator must act, not the user."""
    return Problem(
        503,
        "client_misconfigured",
        "The OAuth client is misconfigured",
        "Google rejects this broker's OAuth client. An operator must fix it; no grant is lost.",
        retry_after=retry_after,
    )


def internal_error() -> Problem:
    """The broker has a defect; the response shows nothing of it."""
    return Problem(
        500, "internal_error", "Internal error", "The broker failed; its log has the details."
    )


def last_answer(problem: Problem, request_id: str) -> bytes:
    """Return the response as bytes, for the HTTP protocol itself. It ends the connection."""
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
