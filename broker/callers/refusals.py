"""Refusals of the gate, as domain values; `broker.callers.answers` maps them to HTTP."""

from enum import StrEnum

from broker.callers.model import Permission


class RefusalReason(StrEnum):
    """The reasons for which the gate refuses a request."""

    CREDENTIAL_IN_URL = "credential_in_url"
    PARAMETERS_IN_URL = "parameters_in_url"
    UNAUTHENTICATED = "unauthenticated"
    """No credential, or an unknown one; the answer does not say which."""
    INVALID_JWT = "invalid_jwt"
    """A JWT that proves no caller; the reason is in the log only."""
    ISSUER_UNAVAILABLE = "issuer_unavailable"
    """The keys of the JWT's issuer cannot be fetched, so the caller is unknown."""
    PERMISSION_MISSING = "permission_missing"
    SUBJECT_REQUIRED = "subject_required"
    """The caller gets tokens by token exchange only."""
    USER_NOT_ALLOWED = "user_not_allowed"
    RATE_LIMIT = "rate_limit"
    CONCURRENCY_LIMIT = "concurrency_limit"
    FAILED_AUTHENTICATIONS = "failed_authentications"
    """Too many from one address."""
    FORM_LIMIT = "form_limit"
    """Too many forms of one address or caller are being read."""


_CODES = {
    RefusalReason.CREDENTIAL_IN_URL: "invalid_request",
    RefusalReason.PARAMETERS_IN_URL: "invalid_request",
    RefusalReason.UNAUTHENTICATED: "unauthenticated",
    RefusalReason.INVALID_JWT: "unauthenticated",
    RefusalReason.ISSUER_UNAVAILABLE: "issuer_unavailable",
    RefusalReason.PERMISSION_MISSING: "forbidden",
    RefusalReason.SUBJECT_REQUIRED: "forbidden",
    RefusalReason.USER_NOT_ALLOWED: "forbidden",
    RefusalReason.RATE_LIMIT: "rate_limited",
    RefusalReason.CONCURRENCY_LIMIT: "rate_limited",
    RefusalReason.FAILED_AUTHENTICATIONS: "rate_limited",
    RefusalReason.FORM_LIMIT: "rate_limited",
}
_AUDITED_WITH_REASON = frozenset({RefusalReason.CREDENTIAL_IN_URL, RefusalReason.PARAMETERS_IN_URL})
"""Reasons that an audit record names besides the code, which says too little there."""


class AccessRefused(Exception):  # noqa: N818  (the request is refused; nothing has failed)
    """A refusal of the gate: raised for a whole request, returned for an item of a batch."""

    def __init__(
        self,
        reason: RefusalReason,
        *,
        permission: Permission | None = None,
        retry_after_seconds: float = 0,
    ) -> None:
        """`permission` is the one that is missing; `retry_after_seconds` counts for limits."""
        super().__init__(reason.value)
        self.reason = reason
        self.permission = permission
        self.retry_after_seconds = retry_after_seconds

    @property
    def code(self) -> str:
        """The contract's problem code, also for metrics."""
        return _CODES[self.reason]

    @property
    def audit_outcome(self) -> str:
        """The outcome of the audit record `request_refused`."""
        return f"{self.code}:{self.reason}" if self.reason in _AUDITED_WITH_REASON else self.code
