"""The possible results of a token request, as domain values.

`broker.tokens.answers` maps them to HTTP, `broker.exchange.errors` to RFC 8693.
"""

from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from typing import Final

from broker.callers.refusals import AccessRefused
from broker.tokens.cache.cached_token import CachedToken


class Denial(StrEnum):
    """Why there is no token until a person acts. The value is public: see `NotGranted.code`."""

    SCOPE_NOT_ALLOWED = "scope_not_allowed"
    """The caller's policy lacks a requested scope."""
    GRANT_NOT_FOUND = "grant_not_found"
    """The user has no live grant of the account; a revoked one does not count."""
    ACCOUNT_AMBIGUOUS = "account_ambiguous"
    """The user has several accounts, none is the default, and the request names none."""
    CONFIRMATION_PENDING = "confirmation_pending"
    """The consent awaits the caller's confirmation."""
    SCOPE_NOT_GRANTED = "scope_not_granted"
    """The user has not granted a requested scope."""
    REAUTHORIZATION_REQUIRED = "reauthorization_required"
    """Google no longer accepts the grant."""


class Outage(StrEnum):
    """Why there is no token now. The value is public: see `Unavailable.code`."""

    GOOGLE = "google_unavailable"
    STORAGE = "storage_unavailable"
    CLIENT = "client_misconfigured"
    """Google refuses the broker's OAuth client: an operator must fix it."""


@dataclass(frozen=True, slots=True)
class NotGranted:
    """No token until the user, the caller or the operator acts: a retry does not help."""

    reason: Denial
    scopes: tuple[str, ...] = ()
    """The requested scopes that are not allowed, or not granted."""
    google_reason: str | None = None
    """Why Google refuses the grant."""

    @property
    def code(self) -> str:
        """The name of the reason in the API, in metrics and in the audit trail."""
        return self.reason.value

    def with_retry_after(self, _pause: timedelta) -> "NotGranted":
        """Return the refusal itself: it has no time after which a retry helps."""
        return self


@dataclass(frozen=True, slots=True)
class Unavailable:
    """No token now; no grant has changed, and a retry after `retry_after` may succeed."""

    reason: Outage
    retry_after: timedelta
    explanation: str | None = None
    """A sentence for people, where the reason alone says too little."""

    @property
    def code(self) -> str:
        """The name of the reason in the API, in metrics and in the audit trail."""
        return self.reason.value

    def with_retry_after(self, pause: timedelta) -> "Unavailable":
        """Return the same refusal for another time."""
        return replace(self, retry_after=pause)


@dataclass(frozen=True, slots=True)
class Defect:
    """The broker itself failed on this item of a batch; the log has the traceback."""

    code = "internal_error"


@dataclass(frozen=True, slots=True)
class ReadAgain:
    """The grant has changed, or another refresh of it has ended: read the grant again."""


READ_AGAIN: Final = ReadAgain()

Refusal = NotGranted | Unavailable | AccessRefused
TokenResult = CachedToken | Refusal
BatchResult = TokenResult | Defect
RefreshResult = CachedToken | NotGranted | Unavailable | ReadAgain

STORAGE_RETRY: Final = timedelta(seconds=2)
"""A guess: an outage of PostgreSQL has no known end."""


def storage_unavailable(retry_after: timedelta = STORAGE_RETRY) -> Unavailable:
    """PostgreSQL is unavailable, and no token in memory answers the request."""
    return Unavailable(Outage.STORAGE, retry_after)


def google_unavailable(
    explanation: str | None = None, *, retry_after: timedelta = timedelta(seconds=1)
) -> Unavailable:
    """Google is slow, unavailable or refuses temporarily."""
    return Unavailable(Outage.GOOGLE, retry_after, explanation)
