"""Which failure of Google's means what: wait, ask the user, or call the operator.

The words of these errors are the broker's own: neither a body, a description nor an unknown code of
Google's gets into a message, because any of them may carry a token.
"""

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2

from broker.google.json_answers import is_html, json_object, says_json

LONGEST_RETRY_AFTER = timedelta(hours=1)
"""A `Retry-After` beyond this is cut, so that one odd answer can't silence the broker for a day."""

_OPERATORS_CODES = frozenset(
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
_NOT_ASKED = frozenset({"busy", "circuit_open"})
"""No connection or turn of our own was free, or Google is being left alone."""
_NOT_GENERAL = frozenset({"rate_limited", "html_403"}) | _NOT_ASKED
"""Reasons why one account is throttled or refused, and those that are our own."""
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
    """Google did not do what was asked.

    `reason` is one of a small, fixed set of labels: fit for metrics, logs and audit records.
    """

    meaning = "Google failed"

    def __init__(self, reason: str) -> None:
        super().__init__(f"{self.meaning}: {reason}")
        self.reason = reason


class GoogleUnavailable(GoogleError):  # noqa: N818  (named for what is the case)
    """For the time being nothing can be said: try again later, and change no grant.

    `retry_after` is Google's own wish, if it sent one.
    """

    meaning = "Google is unavailable"

    def __init__(self, reason: str, retry_after: timedelta | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after

    @property
    def is_general(self) -> bool:
        """Whether Google as a whole seems to fail, and not only for the account asked about."""
        return self.reason not in _NOT_GENERAL

    @property
    def was_asked(self) -> bool:
        """Whether Google was asked at all, so that this says something of the account."""
        return self.reason not in _NOT_ASKED


class GrantRefused(GoogleError):  # noqa: N818
    """The refresh token, or the code, is dead: the user must consent again.

    `reason` is `invalid_grant`, or what Google says of its kind, such as `invalid_rapt`.
    """

    meaning = "Google no longer honours the grant"


class ClientRefused(GoogleError):  # noqa: N818
    """The OAuth client is wrong: the operator's to mend, and no grant changes because of it."""

    meaning = "Google refuses the OAuth client"


class ScopeRefused(GoogleError):  # noqa: N818
    """The grant is alive, but these scopes can't be had from it."""

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
    """The ID token fails a check; nothing that came with it may be kept."""

    meaning = "The ID token is refused"


class SecurityEventRefused(SignedTokenRefused):
    """The security event token fails a check; nothing that it says may have an effect."""

    meaning = "The security event token is refused"


def classify_token_error(response: httpx2.Response) -> GoogleError:
    """What an answer of the token endpoint means that is not a token (RFC 6749 §5.2).

    When in doubt the answer is `GoogleUnavailable`: a definite verdict needs a 4xx with a JSON
    object that names its error in a string.
    """
    document = json_object(response) or {}
    reason = _transient_reason(response, document)
    if reason is not None:
        return GoogleUnavailable(reason, retry_after(response))
    return _definite_error(document)


def retry_after(response: httpx2.Response) -> timedelta | None:
    """`Retry-After` as seconds or as a date (RFC 9110 §10.2.3), within sane bounds."""
    text = response.headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        wish = timedelta(seconds=int(text[:9]))
    else:
        then = _http_date(text)
        if then is None:
            return None
        # Google's own clock is the one that the date was made with.
        wish = then - (_http_date(response.headers.get("Date", "")) or datetime.now(UTC))
    return min(max(wish, timedelta(0)), LONGEST_RETRY_AFTER)


def _transient_reason(response: httpx2.Response, document: dict[str, Any]) -> str | None:
    """Why no verdict may be drawn from this answer, or None if one may."""
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
    # Anything but a plain 400 may be a front end that repeats what it does not mean.
    return "bad_answer" if code == "invalid_grant" and status != 400 else None


def _definite_error(document: dict[str, Any]) -> GoogleError:
    code = document["error"]
    if code == "invalid_grant":
        subtype = document.get("error_subtype")
        known = isinstance(subtype, str) and subtype in _GRANT_SUBTYPES
        return GrantRefused(str(subtype) if known else code)
    if code in _OPERATORS_CODES:
        return ClientRefused(code)
    if code == "invalid_scope":
        return ScopeRefused()
    return RequestRefused(code if code in _OTHER_CODES else "unknown_error")


def _http_date(text: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
