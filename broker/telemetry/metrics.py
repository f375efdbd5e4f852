"""Every Prometheus metric of the broker, in a registry of its own; no user or email in a label."""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)

from broker import __version__
from broker.telemetry.tallies import DurationTallies, Tallies

_FAST = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 2.5, 10)
_LAG = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
_REMOTE = (0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """The names are the contract's; dashboards and alerts rely on them."""

    def __init__(self) -> None:
        # Times of creation would double the number of series, and tell nothing that is used.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        GCCollector(registry=registry)
        self.build_info = Gauge(
            "broker_build_info",
            "Always 1; the release is in the label.",
            ["version"],
            registry=registry,
        )
        self.build_info.labels(__version__).set(1)
        self.event_loop_lag = Histogram(
            "broker_event_loop_lag_seconds",
            "How much later than planned the event loop ran a timer.",
            buckets=_LAG,
            registry=registry,
        )
        self.consents = Counter(
            "broker_consents_total",
            "Consents that ended, by outcome.",
            ["outcome"],
            registry=registry,
        )
        self.token_requests = Tallies(
            "broker_token_requests_total",
            "Requests for a token, by caller (- where it is not known yet) and answer.",
            ["caller", "outcome"],
            registry=registry,
        )
        self.token_refreshes = Counter(
            "broker_token_refreshes_total",
            "Refreshes at Google, by outcome.",
            ["outcome"],
            registry=registry,
        )
        self.refreshes_in_flight = Gauge(
            "broker_token_refreshes_in_flight",
            "Refreshes that this replica has begun and not finished.",
            registry=registry,
        )
        self.google_requests = Counter(
            "broker_google_requests_total",
            "Requests sent to Google, by endpoint and outcome.",
            ["endpoint", "outcome"],
            registry=registry,
        )
        self.google_request_duration = Histogram(
            "broker_google_request_duration_seconds",
            "How long Google took to answer.",
            ["endpoint"],
            buckets=_REMOTE,
            registry=registry,
        )
        self.http_request_duration = DurationTallies(
            "broker_http_request_duration_seconds",
            "How long the broker took to answer.",
            ["listener", "route", "method", "status"],
            buckets=_FAST,
            registry=registry,
        )
        self.revocations = Counter(
            "broker_revocations_total",
            "Grants revoked here (outcome=revoked), and revocations at Google (told, retried, …).",
            ["origin", "outcome"],
            registry=registry,
        )
        self.security_events = Counter(
            "broker_security_events_total",
            "Security events from Google, by outcome (event=none: the token was refused).",
            ["event", "outcome"],
            registry=registry,
        )
        self.storage_up = Gauge(
            "broker_storage_up",
            "0 while PostgreSQL, or the way to it, failed within the last ten seconds.",
            registry=registry,
        )
        self.storage_connections = Gauge(
            "broker_storage_connections",
            "Connections to the primary that are in use or idle.",
            ["state"],
            registry=registry,
        )
        self.storage_connections_max = Gauge(
            "broker_storage_connections_max",
            "Connections to the primary that this replica opens at most.",
            registry=registry,
        )
        self.storage_waiting = Gauge(
            "broker_storage_waiting",
            "Requests waiting for a connection: all are in use (pool), or their share is (share).",
            ["limit"],
            registry=registry,
        )
        self.failovers = Counter(
            "broker_storage_failovers_total",
            "Times that this replica found another primary than before and dropped its cache.",
            registry=registry,
        )
        self.lost_commits = Counter(
            "broker_lost_commits_total",
            "Commits that a failover lost, as far as this replica knew of them, by kind.",
            ["kind"],
            registry=registry,
        )
        self.grants = Gauge(
            "broker_grants", "Grants in the table, by status.", ["status"], registry=registry
        )
        self.secret_source_up = Gauge(
            "broker_secret_source_up",
            "Whether the source of the OAuth client could be read the last time.",
            ["source"],
            registry=registry,
        )
        self.client_secret_version = Gauge(
            "broker_client_secret_version",
            "Version of the OAuth client in use (Vault's KV version, else changes seen).",
            registry=registry,
        )
        self.callers_file_up = Gauge(
            "broker_callers_file_up",
            "Whether the callers file on disk is the one in force (0: it is invalid).",
            registry=registry,
        )
        self.webhooks = Counter(
            "broker_webhooks_total",
            "Attempts to deliver a webhook, by the event's type and outcome.",
            ["type", "outcome"],
            registry=registry,
        )
        self.webhooks_waiting = Gauge(
            "broker_webhooks_waiting",
            "Events that are not delivered yet.",
            registry=registry,
        )
        self.audit_waiting = Gauge(
            "broker_audit_records_waiting",
            "Audit records that are not written yet; a crash would lose them.",
            registry=registry,
        )
        self.audit_dropped = Counter(
            "broker_audit_records_dropped_total",
            "Audit records lost because PostgreSQL was away too long, or too slow.",
            registry=registry,
        )
        self.audit_left_out = Counter(
            "broker_audit_records_left_out_total",
            "Unauthenticated requests that the audit trail counts but does not record one by one.",
            registry=registry,
        )
        self.rate_limited = Tallies(
            "broker_rate_limited_total",
            "Requests refused by a rate or concurrency limit; the caller - is unauthenticated.",
            ["caller", "limit"],
            registry=registry,
        )
        self.audit_seals = Counter(
            "broker_audit_seals_total",
            "Batches of audit records that this replica wrote and sealed.",
            registry=registry,
        )
        self.audit_head = Gauge(
            "broker_audit_head",
            "Number of the newest seal of the audit trail that this replica wrote.",
            registry=registry,
        )
        self.audit_seals_lost = Counter(
            "broker_audit_seals_lost_total",
            "Times that a seal written by this replica was no longer in the audit trail.",
            registry=registry,
        )
        self.audit_faults = Counter(
            "broker_audit_faults_total",
            "Faults of the audit trail that were found when its oldest part was deleted.",
            registry=registry,
        )
        self.audit_unverified = Counter(
            "broker_audit_unverified_total",
            "Seals of the audit trail that were deleted as old without the key to verify them.",
            registry=registry,
        )
        self.upkeep_failures = Counter(
            "broker_upkeep_failures_total",
            "Times that a maintenance task began to fail; it is tried again until it works.",
            ["chore"],
            registry=registry,
        )
        self.issuer_up = Gauge(
            "broker_issuer_up",
            "Whether the issuer's signing keys could be fetched the last time.",
            ["issuer"],
            registry=registry,
        )
        self.issuer_requests = Counter(
            "broker_issuer_requests_total",
            "Fetches of an issuer's signing keys, by outcome.",
            ["issuer", "outcome"],
            registry=registry,
        )
        self.jwts_refused = Counter(
            "broker_jwts_refused_total",
            "JWTs refused, by use (caller or subject) and reason.",
            ["use", "reason"],
            registry=registry,
        )
