"""Sets up the metrics: counters start at 0, and gauges are read from their parts at each scrape.

Prometheus sees no increase in a series whose first sample is already 1. So each counter whose
labels are known in advance starts at 0; else the first event of each kind would raise no alert.
"""

from collections.abc import Iterable

from broker.callers.limits import NO_CALLER
from broker.callers.model import Caller
from broker.consent.consent_outcomes import ConsentOutcome
from broker.database.database import Database
from broker.google.security_events import EventKind
from broker.grants.lost_commits import LostCommit
from broker.grants.model import GrantStatus
from broker.issuers.model import Issuer
from broker.security_events.decisions import Effect
from broker.telemetry.metrics import Metrics
from broker.tokens.refresh.refresher import Refresher

_OUTAGE_SECONDS = 10.0
"""Longer than one attempt to connect, so that one outage is not shown as several."""

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
"""The outcomes of a token request, as the contract lists them."""

UNAUTHENTICATED_TOKEN_OUTCOMES = ("storage_unavailable", "issuer_unavailable", "internal_error")
"""Outcomes of a token request that fails before its caller is authenticated."""

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
"""Outcomes of calls to Google and to issuers. The others are HTTP statuses and OAuth errors."""

TOKEN_ENDPOINT_OUTCOMES = ("invalid_grant", "invalid_client", "unauthorized_client", "rate_limited")
REVOCATION_ORIGINS = ("caller", "user", "failover")
"""Origins of revocations that end a grant here. These can fail."""

TOKEN_REVOCATION_ORIGINS = (
    "unconfirmed",
    "account_mismatch",
    "too_late",
    "security_event",
    "superseded",
)
"""Origins of revocations that end a token at Google, and no grant here."""

REVOCATION_OUTCOMES_AT_GOOGLE = ("told", "retried", "refused")
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
    """Start the counters that have no label of a caller or an issuer."""
    for consent in (*ConsentOutcome, GrantStatus.PENDING_CONFIRMATION, "unconfirmed"):
        metrics.consents.labels(outcome=str(consent))
    for refresh in REFRESH_OUTCOMES:
        metrics.token_refreshes.labels(refresh)
    for kind in LostCommit:
        metrics.lost_commits.labels(kind.value)
    for type_ in WEBHOOK_TYPES:
        for delivery in WEBHOOK_OUTCOMES:
            metrics.webhooks.labels(type_, delivery)
    for use in ("caller", "subject"):
        for reason in REFUSED_JWTS:
            metrics.jwts_refused.labels(use=use, reason=reason)
    for outcome in UNAUTHENTICATED_TOKEN_OUTCOMES:
        metrics.token_requests.labels(NO_CALLER, outcome)
    for limit in ("failures", "overload", "address"):
        metrics.rate_limited.labels(NO_CALLER, limit)
    _start_google(metrics)
    _start_revocations(metrics)
    _start_security_events(metrics)


def start_callers_at_zero(metrics: Metrics, callers: Iterable[Caller]) -> None:
    """Start the counters per caller; called again with each new callers file."""
    for caller in callers:
        for outcome in TOKEN_OUTCOMES:
            metrics.token_requests.labels(caller.name, outcome)
        for limit in ("rate", "overload"):
            metrics.rate_limited.labels(caller.name, limit)


def start_issuers_at_zero(metrics: Metrics, issuers: Iterable[Issuer]) -> None:
    """Start the counters per issuer; called again with each new callers file."""
    for issuer in issuers:
        for outcome in CALL_OUTCOMES:
            metrics.issuer_requests.labels(issuer=issuer.url, outcome=outcome)


def observe_storage(metrics: Metrics, database: Database) -> None:
    """Show whether the primary is available, and how busy the connection pool is."""
    pool = database.pool
    metrics.storage_up.set_function(lambda: not database.was_unavailable_within(_OUTAGE_SECONDS))
    metrics.storage_connections.labels("in_use").set_function(lambda: pool.in_use)
    metrics.storage_connections.labels("idle").set_function(lambda: pool.idle)
    metrics.storage_connections_max.set(pool.size)
    metrics.storage_waiting.labels("pool").set_function(lambda: pool.waiting_for_pool)
    metrics.storage_waiting.labels("share").set_function(lambda: pool.waiting_for_share)


def observe_refreshes(metrics: Metrics, refresher: Refresher) -> None:
    """Show how many refreshes are in flight."""
    metrics.refreshes_in_flight.set_function(lambda: refresher.in_flight)


def _start_google(metrics: Metrics) -> None:
    for endpoint in GOOGLE_ENDPOINTS:
        metrics.google_request_duration.labels(endpoint=endpoint)
        for outcome in CALL_OUTCOMES:
            metrics.google_requests.labels(endpoint=endpoint, outcome=outcome)
    for outcome in TOKEN_ENDPOINT_OUTCOMES:
        metrics.google_requests.labels(endpoint="token", outcome=outcome)


def _start_revocations(metrics: Metrics) -> None:
    for origin in REVOCATION_ORIGINS:
        for outcome in ("revoked", "failed", *REVOCATION_OUTCOMES_AT_GOOGLE):
            metrics.revocations.labels(origin, outcome)
    for origin in TOKEN_REVOCATION_ORIGINS:
        for outcome in REVOCATION_OUTCOMES_AT_GOOGLE:
            metrics.revocations.labels(origin, outcome)


def _start_security_events(metrics: Metrics) -> None:
    for kind in EventKind:
        for outcome in (*Effect, "duplicate", "failed"):
            metrics.security_events.labels(kind.value, str(outcome))
    for reason in REFUSED_EVENTS:
        metrics.security_events.labels("none", reason)
