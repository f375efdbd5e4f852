"""The meaning of Google's errors: retry later, ask the user, or call the operator.

No message contains a body, a description or an unknown code of Google's, because any of them may
carry a token.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any

import httpx2

from broker.outbound.cached_fetch import ServerUnavailable
from broker.outbound.responses import is_html, json_object, retry_after, says_json

_OPERATOR_CODES = frozenset(
    {
        "invalid_client",
        "unauthorized_client",
        "deleted_client",
        "disabled_client",
        "restricted_client",
        "redirect_uri_mismatch",
        "org_internal",
    }
)
_TRANSIENT_CODES = frozenset({"internal_failure", "server_error", "temporarily_unavailable"})
_RATE_CODES = frozenset(
    {"rate_limit_exceeded", "rateLimitExceeded", "userRateLimitExceeded", "quota_exceeded"}
)
_NOT_SENT = frozenset({"busy", "circuit_open"})
"""No connection or slot of the broker's was free, or the circuit breaker is open."""
_NOT_GENERAL = frozenset({"rate_limited", "html_403"}) | _NOT_SENT
"""Reasons why Google throttles or refuses one account, and the broker's own reasons."""
_GRANT_SUBTYPES = frozenset({"invalid_rapt", "rapt_required"})
_OTHER_CODES = frozenset(
    {
        "access_denied",
        "admin_policy_enforced",
        "invalid_request",
        "invalid_token",
        "unsupported_grant_type",
        "unsupported_token_type",
    }
)


class GoogleError(Exception):
    """Google did not do what was requested.

    `reason` is one of a small, fixed set of labels, fit for metrics, logs and audit records.
    """

    meaning = "Google failed"

    def __init__(self, reason: str) -> None:
        super().__init__(f"{self.meaning}: {reason}")
        self.reason = reason


class GoogleUnavailable(GoogleError, ServerUnavailable):  # noqa: N818  (named for the state)
    """Google gives no verdict now: retry later, and change no grant.

    `retry_after` is the pause that Google asks for, if it does.
    """

    meaning = "Google is unavailable"

    def __init__(self, reason: str, retry_after: timedelta | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after

    @property
    def is_general(self) -> bool:
        """True if Google as a whole fails, not only for the account in question."""
        return self.reason not in _NOT_GENERAL

    @property
    def was_asked(self) -> bool:
        """True if a request was sent, so that the failure says something about the account."""
        return self.reason not in _NOT_SENT


class GrantRefused(GoogleError):  # noqa: N818  (Google refuses it)
    """The refresh token or the code is invalid: the user must consent again.

    `reason` is `invalid_grant`, or Google's subtype of it, such as `invalid_rapt`.
    """

    meaning = "Google no longer accepts the grant"


class ClientRefused(GoogleError):  # noqa: N818
    """The OAuth client is wrong: an operator must fix it, and no grant changes because of it."""

    meaning = "Google refuses the OAuth client"


class ScopeRefused(GoogleError):  # noqa: N818
    """The grant is valid but does not include these scopes."""

    meaning = "Google refuses the scope"

    def __init__(self, reason: str = "invalid_scope") -> None:
        super().__init__(reason)


class RequestRefused(GoogleError):  # noqa: N818
    """Any other definite refusal; says nothing about the grant or the client."""

    meaning = "Google refuses the request"


class SignedTokenRefused(GoogleError):  # noqa: N818
    """A token that should bear Google's signature fails a check."""

    meaning = "The token is refused"


class IdTokenRefused(SignedTokenRefused):
    """The ID token fails a check; discard everything that came with it."""

    meaning = "The ID token is refused"


class SecurityEventRefused(SignedTokenRefused):
    """The security event token fails a check; nothing in it may have an effect."""

    meaning = "The security event token is refused"


class Actor(StrEnum):
    """The one who can resolve an authorization error."""

    USER = "user"
    ADMINISTRATOR = "administrator"
    """Of the user's own organisation, in Google Workspace."""
    OPERATOR = "operator"
    """Of this broker, in Google's console."""


class AuthorizationOutcome(StrEnum):
    """The `status` that `return_to` gets after a consent without a code."""

    DENIED = "denied"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class AuthorizationError:
    """The meaning of an error in an authorization response (RFC 6749 §4.1.2.1)."""

    code: str
    """Google's own code, or `unknown_error`: from a fixed set, fit for logs and metrics."""
    actor: Actor
    outcome: AuthorizationOutcome


def explain_authorization_error(unverified_code: str | None) -> AuthorizationError:
    """Return the meaning of a callback's `error` parameter.

    An unknown code is never repeated, because anyone can write the query string.
    """
    return AUTHORIZATION_ERRORS.get(unverified_code or "", _UNKNOWN)


def classify_token_error(response: httpx2.Response) -> GoogleError:
    """Return the meaning of an error response of the token endpoint (RFC 6749 §5.2).

    In doubt it is `GoogleUnavailable`: a definite verdict needs a 4xx with a JSON object whose
    `error` is a string.
    """
    document = json_object(response) or {}
    reason = _transient_reason(response, document)
    if reason is not None:
        return GoogleUnavailable(reason, retry_after(response))
    return _definite_error(document)


def _transient_reason(response: httpx2.Response, document: dict[str, Any]) -> str | None:
    """Return why the response gives no verdict, or None if it gives one."""
    status, code = response.status_code, document.get("error")
    if status < 400:
        return "bad_answer"
    if status == 429:
        return "rate_limited"
    if status == 408 or status >= 500:
        return f"http_{status}"
    for name in (code, document.get("error_description")):
        if isinstance(name, str) and name in _TRANSIENT_CODES:
            return name
    if is_html(response):
        return f"html_{status}"
    if not document or not says_json(response):
        return "not_json"
    if code in ("", None) or not isinstance(code, str):
        return "bad_answer"
    if code in _RATE_CODES:
        return "rate_limited"
    # With any status but 400 a gateway may speak that repeats the code without meaning it.
    return "bad_answer" if code == "invalid_grant" and status != 400 else None


def _definite_error(document: dict[str, Any]) -> GoogleError:
    code = document["error"]
    if code == "invalid_grant":
        subtype = document.get("error_subtype")
        known = isinstance(subtype, str) and subtype in _GRANT_SUBTYPES
        return GrantRefused(str(subtype) if known else code)
    if code in _OPERATOR_CODES:
        return ClientRefused(code)
    if code == "invalid_scope":
        return ScopeRefused()
    return RequestRefused(code if code in _OTHER_CODES else "unknown_error")


def _failures(actor: Actor, codes: Iterable[str]) -> dict[str, AuthorizationError]:
    return {code: AuthorizationError(code, actor, AuthorizationOutcome.FAILED) for code in codes}


_UNKNOWN = AuthorizationError("unknown_error", Actor.USER, AuthorizationOutcome.FAILED)

AUTHORIZATION_ERRORS = {
    "access_denied": AuthorizationError("access_denied", Actor.USER, AuthorizationOutcome.DENIED),
    **_failures(Actor.ADMINISTRATOR, ["admin_policy_enforced"]),
    **_failures(
        Actor.USER,
        [
            "disallowed_useragent",
            "org_internal",
            "login_required",
            "account_selection_required",
            "consent_required",
            "interaction_required",
            "invalid_grant",
            "server_error",
            "temporarily_unavailable",
            "internal_failure",
        ],
    ),
    **_failures(
        Actor.OPERATOR,
        [
            "invalid_client",
            "deleted_client",
            "disabled_client",
            "unauthorized_client",
            "redirect_uri_mismatch",
            "invalid_request",
            "invalid_scope",
            "unsupported_response_type",
        ],
    ),
}
