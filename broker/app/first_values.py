"""Starts every counter whose labels are known in advance at 0.

Prometheus sees no increase in a series whose first sample is already 1: without this, the first
event of each kind would raise no alert.
"""

from collections.abc import Iterable

from broker.callers.limits import NOBODY
from broker.callers.model import Caller
from broker.consent.outcomes import ConsentOutcome
from broker.google.security_events import EventKind
from broker.grants.lost_commits import LostCommit
from broker.grants.model import GrantStatus
from broker.issuers.model import Issuer
from broker.security_events.outcomes import Effect
from broker.telemetry.metrics import Metrics

TOKEN_OUTCOMES = (
    "ok",
    "invalid_request",
    "scope_not_allowed",
    "grant_not_found",
    "reauthorization_required",
    "scope_not_granted",
    "confirmation_pending",
    "account_ambiguous",
    "google_unavailable",
    "storage_unavailable",
    "client_misconfigured",
    "issuer_unavailable",
    "internal_error",
)
"""What a request for a token is answered with, as the contract lists it."""

FAILURES_OF_NOBODY = ("storage_unavailable", "issuer_unavailable", "internal_error")
"""The same, while it is not known yet who asks."""

REFRESH_OUTCOMES = (
    "refreshed",
    "refreshed_unsaved",
    "superseded",
    "unsettled",
    "unavailable",
    "grant_refused",
    "client_refused",
    "foreign_client",
    "scope_refused",
    "too_wide",
)
GOOGLE_ENDPOINTS = ("discovery", "risc_configuration", "jwks", "token", "revocation")
CALL_OUTCOMES = ("ok", "timeout", "connect", "network", "protocol", "bad_answer", "busy")
"""Of calls to Google and to issuers; the rest is HTTP statuses and words of theirs."""

TOKEN_ENDPOINT_OUTCOMES = ("invalid_grant", "invalid_client", "unauthorized_client", "rate_limited")
REVOCATION_ORIGINS = ("caller", "user", "failover")
"""Of revocations of grants; these can fail."""

ENDING_ORIGINS = ("unconfirmed", "account_mismatch", "too_late", "security_event", "superseded")
"""Of tokens that Google is asked to end without a grant being revoked here."""

AT_GOOGLE = ("told", "retried", "refused")
REFUSED_EVENTS = (
    "failed",
    "bad_signature",
    "unknown_key",
    "alg",
    "iss",
    "aud",
    "iat",
    "jti",
    "events",
    "malformed",
)
REFUSED_JWTS = (
    "expired",
    "audience",
    "no_such_workload",
    "issuer",
    "algorithm",
    "unknown_key",
    "signature",
    "not_yet",
    "malformed",
)
WEBHOOK_TYPES = (
    "grant.connected",
    "grant.reauthorization_required",
    "grant.recovered",
    "grant.revoked",
)
WEBHOOK_OUTCOMES = ("delivered", "retried", "gone", "given_up")


def start_at_zero(metrics: Metrics) -> None:
    """Everything that is no caller's and no issuer's."""
    for consent in (*ConsentOutcome, GrantStatus.PENDING_CONFIRMATION, "unconfirmed"):
        metrics.consents.labels(outcome=str(consent))
    for refresh in REFRESH_OUTCOMES:
        metrics.token_refreshes.labels(refresh)
    for kind in LostCommit:
        metrics.lost_commits.labels(kind.value)
    for type_ in WEBHOOK_TYPES:
        for sent in WEBHOOK_OUTCOMES:
            metrics.webhooks.labels(type_, sent)
    for use in ("caller", "subject"):
        for reason in REFUSED_JWTS:
            metrics.jwts_refused.labels(use=use, reason=reason)
    for failure in FAILURES_OF_NOBODY:
        metrics.token_requests.labels(NOBODY, failure)
    for limit in ("failures", "overload", "address"):
        metrics.rate_limited.labels(NOBODY, limit)
    _start_google(metrics)
    _start_revocations(metrics)
    _start_security_events(metrics)


def start_callers_at_zero(metrics: Metrics, callers: Iterable[Caller]) -> None:
    """What is counted for each caller; again whenever the callers file has changed."""
    for caller in callers:
        for outcome in TOKEN_OUTCOMES:
            metrics.token_requests.labels(caller.name, outcome)
        for limit in ("rate", "overload"):
            metrics.rate_limited.labels(caller.name, limit)


def start_issuers_at_zero(metrics: Metrics, issuers: Iterable[Issuer]) -> None:
    """What is counted for each issuer; again whenever the callers file has changed."""
    for issuer in issuers:
        for outcome in CALL_OUTCOMES:
            metrics.issuer_requests.labels(issuer=issuer.url, outcome=outcome)


def _start_google(metrics: Metrics) -> None:
    for endpoint in GOOGLE_ENDPOINTS:
        metrics.google_request_duration.labels(endpoint=endpoint)
        for outcome in CALL_OUTCOMES:
            metrics.google_requests.labels(endpoint=endpoint, outcome=outcome)
    for outcome in TOKEN_ENDPOINT_OUTCOMES:
        metrics.google_requests.labels(endpoint="token", outcome=outcome)


def _start_revocations(metrics: Metrics) -> None:
    for origin in REVOCATION_ORIGINS:
        for outcome in ("revoked", "failed", *AT_GOOGLE):
            metrics.revocations.labels(origin, outcome)
    for origin in ENDING_ORIGINS:
        for outcome in AT_GOOGLE:
            metrics.revocations.labels(origin, outcome)


def _start_security_events(metrics: Metrics) -> None:
    for kind in EventKind:
        for outcome in (*Effect, "duplicate", "failed"):
            metrics.security_events.labels(kind.value, str(outcome))
    for reason in REFUSED_EVENTS:
        metrics.security_events.labels("none", reason)
