"""Refusals as OAuth 2.0 has them (RFC 6749 §5.2), and what the broker's own problems become there.

The broker's `code` stays beside the few words of the RFC: programs written for it decide by that.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.responses import Response

from broker.web.problems import NO_STORE, Problem

REALM = "token-broker"

_ERRORS = {
    "unauthenticated": "invalid_client",
    "scope_not_allowed": "invalid_scope",
    "scope_not_granted": "invalid_scope",
    "grant_not_found": "invalid_grant",
    "reauthorization_required": "invalid_grant",
    "confirmation_pending": "invalid_grant",
    # RFC 8693 §2.2.2: what is unacceptable based on policy.
    "forbidden": "invalid_request",
}
"""All other refusals are `invalid_request`."""

_KEPT_MEMBERS = ("field", "scopes", "missing", "reason")


@dataclass(eq=False)
class OAuthError(Exception):
    """A refusal of the token endpoint."""

    error: str
    description: str
    status: int = 400
    code: str | None = None
    members: Mapping[str, Any] = field(default_factory=dict)
    retry_after: int | None = None
    challenge: str | None = None

    def __str__(self) -> str:
        return f"{self.status} {self.error}: {self.description}"


def invalid_request(description: str, *, status: int = 400) -> OAuthError:
    """A parameter is missing, doubled or malformed."""
    return OAuthError("invalid_request", description, status, "invalid_request")


def invalid_client(*, challenge: str = "Bearer") -> OAuthError:
    """No known client; which part of its credential is wrong is not said."""
    return OAuthError(
        "invalid_client",
        "No known credential came with this request.",
        401,
        "unauthenticated",
        challenge=challenge,
    )


def unauthorized_client(description: str) -> OAuthError:
    """The caller is known and may not use token exchange."""
    return OAuthError("unauthorized_client", description, code="forbidden")


def from_problem(problem: Problem) -> OAuthError:
    """What a problem of the broker's is called here."""
    if problem.status in (429, 503):
        # RFC 6749 §4.1.2.1 has this word for an overload; §5.2 leaves the token endpoint without.
        error, status = "temporarily_unavailable", problem.status
    else:
        # RFC 6749 §5.2: a scope that is malformed has the same word as one that is not to be had.
        is_scope = problem.code == "invalid_request" and problem.members.get("field") == "scope"
        error = "invalid_scope" if is_scope else _ERRORS.get(problem.code, "invalid_request")
        status = problem.status if problem.status in (401, 413) else 400
    return OAuthError(
        error,
        problem.detail,
        status,
        problem.code,
        {name: problem.members[name] for name in _KEPT_MEMBERS if name in problem.members},
        problem.retry_after,
        problem.challenge if status == 401 else None,
    )


def error_response(error: OAuthError, request_id: str) -> Response:
    """The HTTP answer."""
    document: dict[str, Any] = {
        "error": error.error,
        "error_description": _plain(error.description),
        **({"code": error.code} if error.code else {}),
        **error.members,
        "request_id": request_id,
    }
    headers = {**NO_STORE, "Pragma": "no-cache"}
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    if error.challenge is not None:
        headers["WWW-Authenticate"] = error.challenge
    return Response(
        json.dumps(document, ensure_ascii=False).encode(),
        status_code=error.status,
        headers=headers,
        media_type="application/json",
    )


def _plain(text: str) -> str:
    """What may stand in `error_description`: printable ASCII but for two characters."""
    return "".join(char if " " <= char <= "~" and char not in '"\\' else "'" for char in text)
