"""What Google's authorization errors mean to people: whose turn it is, and what to do.

The words are fixed. Nothing from the query string is repeated, because anyone can write one.
"""

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
    title: str
    advice: str


def explain(unverified_code: str | None) -> AuthorizationError:
    """The meaning of a callback's `error` parameter, whatever it holds."""
    return _KNOWN.get(unverified_code or "", _UNKNOWN)


def _failed(code: str, actor: Actor, title: str, advice: str) -> AuthorizationError:
    return AuthorizationError(code, actor, ConsentOutcome.FAILED, title, advice)


_ASK_OPERATOR = (
    "This is not your mistake, and trying again won't help. "
    "Please tell the people who run this service; they have to mend its set-up at Google."
)
_TRY_AGAIN = "Please go back to where you started and connect again."

_UNKNOWN = _failed(
    "unknown_error",
    Actor.USER,
    "Google could not finish connecting your account",
    _TRY_AGAIN + " If it happens again, tell the people who run this service.",
)

_ALL = (
    AuthorizationError(
        "access_denied",
        Actor.USER,
        ConsentOutcome.DENIED,
        "You did not allow the connection",
        "Nothing was connected. If you change your mind, go back to where you started and connect "
        "again. If you did want to allow it, the app may not be open to your account yet: "
        "ask the people who run this service.",
    ),
    _failed(
        "admin_policy_enforced",
        Actor.ADMINISTRATOR,
        "Your organisation does not allow this connection",
        "Ask the Google Workspace administrator of your organisation to trust this app, "
        "or connect another Google account.",
    ),
    _failed(
        "disallowed_useragent",
        Actor.USER,
        "Google does not allow signing in from this window",
        "Open the link in your usual browser, such as Chrome, Safari, Firefox or Edge, "
        "not inside another app.",
    ),
    _failed(
        "org_internal",
        Actor.USER,
        "This connection is only for accounts of one organisation",
        "Connect with your work account of the organisation that runs this service. "
        "If you did, ask the people who run it to open the app to your account.",
    ),
    _failed(
        "login_required",
        Actor.USER,
        "You need to sign in to Google first",
        _TRY_AGAIN,
    ),
    _failed(
        "account_selection_required",
        Actor.USER,
        "You need to choose a Google account",
        _TRY_AGAIN,
    ),
    _failed(
        "consent_required",
        Actor.USER,
        "Google needs you to allow the connection",
        _TRY_AGAIN,
    ),
    _failed(
        "interaction_required",
        Actor.USER,
        "Google needs you to take another step",
        _TRY_AGAIN,
    ),
    _failed(
        "invalid_grant",
        Actor.USER,
        "The connection took too long or was already used",
        _TRY_AGAIN,
    ),
    *(
        _failed(code, Actor.USER, "Google has a problem just now", "Please try again in a while.")
        for code in ("server_error", "temporarily_unavailable", "internal_failure")
    ),
    *(
        _failed(
            code, Actor.OPERATOR, "This service is not set up correctly at Google", _ASK_OPERATOR
        )
        for code in (
            "invalid_client",
            "deleted_client",
            "disabled_client",
            "unauthorized_client",
            "redirect_uri_mismatch",
            "invalid_request",
            "invalid_scope",
            "unsupported_response_type",
        )
    ),
)
_KNOWN = {error.code: error for error in _ALL}
