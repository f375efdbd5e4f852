"""The refusals of the token endpoint (RFC 6749 §5.2, RFC 8693 §2.2.2): one table for each kind.

The broker's own `code` accompanies the RFC's error: programs written for the broker decide by it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from starlette.responses import Response

from broker.callers.refusals import AccessRefused, RefusalReason
from broker.tokens.answers import problem_of
from broker.tokens.results import Denial, NotGranted, Refusal
from broker.web.problems import NO_STORE, Problem

REALM = "token-broker"


class _Error(NamedTuple):
    name: str
    status: int = 400


_UNAVAILABLE = _Error("temporarily_unavailable", 503)
"""RFC 6749 §4.1.2.1 defines it for the authorization endpoint; §5.2 has no error for an outage."""
_OVER_LIMIT = _Error("temporarily_unavailable", 429)

DENIALS: Final[Mapping[Denial, _Error]] = {
    Denial.SCOPE_NOT_ALLOWED: _Error("invalid_scope"),
    Denial.SCOPE_NOT_GRANTED: _Error("invalid_scope"),
    Denial.GRANT_NOT_FOUND: _Error("invalid_grant"),
    Denial.REAUTHORIZATION_REQUIRED: _Error("invalid_grant"),
    Denial.CONFIRMATION_PENDING: _Error("invalid_grant"),
    Denial.ACCOUNT_AMBIGUOUS: _Error("invalid_request"),
}

ACCESS_REFUSALS: Final[Mapping[RefusalReason, _Error]] = {
    RefusalReason.CREDENTIAL_IN_URL: _Error("invalid_request"),
    RefusalReason.PARAMETERS_IN_URL: _Error("invalid_request"),
    RefusalReason.UNAUTHENTICATED: _Error("invalid_client", 401),
    RefusalReason.INVALID_JWT: _Error("invalid_client", 401),
    RefusalReason.ISSUER_UNAVAILABLE: _UNAVAILABLE,
    RefusalReason.PERMISSION_MISSING: _Error("unauthorized_client"),
    # RFC 8693 §2.2.2: unacceptable based on policy.
    RefusalReason.SUBJECT_REQUIRED: _Error("invalid_request"),
    RefusalReason.USER_NOT_ALLOWED: _Error("invalid_request"),
    RefusalReason.RATE_LIMIT: _OVER_LIMIT,
    RefusalReason.CONCURRENCY_LIMIT: _OVER_LIMIT,
    RefusalReason.FAILED_AUTHENTICATIONS: _OVER_LIMIT,
    RefusalReason.FORM_LIMIT: _OVER_LIMIT,
}

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


def invalid_request(description: str) -> OAuthError:
    """A parameter is missing, repeated or malformed."""
    return OAuthError("invalid_request", description, code="invalid_request")


def invalid_client(challenge: str) -> OAuthError:
    """The credential is unknown; the answer does not say which part of it is wrong."""
    return OAuthError(
        "invalid_client",
        "No known credential came with this request.",
        401,
        "unauthenticated",
        challenge=challenge,
    )


def from_refusal(refusal: Refusal) -> OAuthError:
    """Return the error for a refusal of the gate or of the dispenser."""
    problem = problem_of(refusal)
    if isinstance(refusal, NotGranted):
        error = DENIALS[refusal.reason]
    elif isinstance(refusal, AccessRefused):
        error = ACCESS_REFUSALS[refusal.reason]
    else:
        error = _UNAVAILABLE
    return OAuthError(
        error.name,
        problem.detail,
        error.status,
        problem.code,
        _members_of(problem),
        problem.retry_after,
        problem.challenge if error.name == "invalid_client" else None,
    )


def from_malformed(problem: Problem, *, error: str = "invalid_request") -> OAuthError:
    """Return the error for a request that a parser refuses; a body may be too long (413)."""
    return OAuthError(error, problem.detail, problem.status, problem.code, _members_of(problem))


def _members_of(problem: Problem) -> Mapping[str, Any]:
    return {name: problem.members[name] for name in _KEPT_MEMBERS if name in problem.members}


def error_response(error: OAuthError, request_id: str) -> Response:
    """Return the HTTP answer."""
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
    """Replace what `error_description` may not have (RFC 6749 §5.2) by `'`."""
    return "".join(char if " " <= char <= "~" and char not in '"\\' else "'" for char in text)
