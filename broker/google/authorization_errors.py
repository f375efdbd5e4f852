"""Which authorization errors Google may send back, and whose turn it is then.

Nothing from the query string is repeated, because anyone can write one; the words that a person
gets to read are the consent room's.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Actor(StrEnum):
    """Who can mend it."""

    USER = "user"
    ADMINISTRATOR = "administrator"
    """Of the user's own organisation, in Google Workspace."""
    OPERATOR = "operator"
    """Of this broker, in Google's console."""


class ConsentOutcome(StrEnum):
    """How a consent that brought no code ended, as `return_to` is told it."""

    DENIED = "denied"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class AuthorizationError:
    """One error, explained."""

    code: str
    """Google's own code, or `unknown_error`: from a fixed set, fit for logs and metrics."""
    actor: Actor
    outcome: ConsentOutcome


def explain(unverified_code: str | None) -> AuthorizationError:
    """The meaning of a callback's `error` parameter, whatever it holds."""
    return KNOWN_ERRORS.get(unverified_code or "", _UNKNOWN)


def _failures(actor: Actor, codes: Iterable[str]) -> dict[str, AuthorizationError]:
    return {code: AuthorizationError(code, actor, ConsentOutcome.FAILED) for code in codes}


_UNKNOWN = AuthorizationError("unknown_error", Actor.USER, ConsentOutcome.FAILED)

KNOWN_ERRORS = {
    "access_denied": AuthorizationError("access_denied", Actor.USER, ConsentOutcome.DENIED),
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
