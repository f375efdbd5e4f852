"""Every Prometheus metric of the broker. No label has a user id or an email address."""

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
from broker.telemetry.lockless_metrics import CounterFamily, HistogramFamily

_FAST = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 2.5, 10)
_LAG = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
_REMOTE = (0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """All metrics of one process, in its own registry. Dashboards and alerts rely on the names."""

    def __init__(self) -> None:
        # Times of creation would double the number of series; nothing uses them.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        GCCollector(registry=registry)
        self.build_info = Gauge(
            "broker_build_info",
            "Always 1; the label `version` has the release.",
            ["version"],
            registry=registry,
        )
        self.build_info.labels(__version__).set(1)
        self.event_loop_lag = Histogram(
            "broker_event_loop_lag_seconds",
            "Delay of timers in the event loop. What blocks the loop delays every request.",
            buckets=_LAG,
            registry=registry,
        )
        self.consents = Counter(
            "broker_consents_total",
            "Finished consents, by outcome.",
            ["outcome"],
            registry=registry,
        )
        self.token_requests = CounterFamily(
            "broker_token_requests_total",
            "Token requests, by caller (-: not authenticated) and outcome.",
            ["caller", "outcome"],
            registry=registry,
        )
        self.token_refreshes = Counter(
            "broker_token_refreshes_total",
            "Token refreshes, by outcome.",
            ["outcome"],
            registry=registry,
        )
        self.refreshes_in_flight = Gauge(
            "broker_token_refreshes_in_flight",
            "Token refreshes in flight on this replica.",
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
            "Duration of requests to Google, by endpoint.",
            ["endpoint"],
            buckets=_REMOTE,
            registry=registry,
        )
        self.http_request_duration = HistogramFamily(
            "broker_http_request_duration_seconds",
            "Duration of HTTP requests to the broker, by listener, route, method and status.",
            ["listener", "route", "method", "status"],
            buckets=_FAST,
            registry=registry,
        )
        self.revocations = Counter(
            "broker_revocations_total",
            "Revocations of grants here (revoked, failed) and at Google, by origin and outcome.",
            ["origin", "outcome"],
            registry=registry,
        )
        self.security_events = Counter(
            "broker_security_events_total",
            "Security events from Google, by event (none: an invalid token) and outcome.",
            ["event", "outcome"],
            registry=registry,
        )
        self.storage_up = Gauge(
            "broker_storage_up",
            "0 if PostgreSQL was unavailable within the last ten seconds, else 1.",
            registry=registry,
        )
        self.storage_connections = Gauge(
            "broker_storage_connections",
            "Open connections to the primary, by state (in_use, idle).",
            ["state"],
            registry=registry,
        )
        self.storage_connections_max = Gauge(
            "broker_storage_connections_max",
            "Maximum number of connections of this replica to the primary.",
            registry=registry,
        )
        self.storage_waiting = Gauge(
            "broker_storage_waiting",
            "Requests that wait for a connection: all (pool) or those of their share are in use.",
            ["limit"],
            registry=registry,
        )
        self.failovers = Counter(
            "broker_storage_failovers_total",
            "Failovers of PostgreSQL that this replica noticed; each empties its token cache.",
            registry=registry,
        )
        self.lost_commits = Counter(
            "broker_lost_commits_total",
            "Commits that a failover lost and that this replica knew of, by kind.",
            ["kind"],
            registry=registry,
        )
        self.grants = Gauge(
            "broker_grants", "Grants in the table, by status.", ["status"], registry=registry
        )
        self.secret_source_up = Gauge(
            "broker_secret_source_up",
            "1 if the last read of the OAuth client from its source succeeded, else 0.",
            ["source"],
            registry=registry,
        )
        self.client_secret_version = Gauge(
            "broker_client_secret_version",
            "Version of the OAuth client in use: the KV version in Vault, else a count of changes.",
            registry=registry,
        )
        self.callers_file_up = Gauge(
            "broker_callers_file_up",
            "1 if the callers file on disk is in force, 0 if it is invalid and was rejected.",
            registry=registry,
        )
        self.webhooks = Counter(
            "broker_webhooks_total",
            "Webhook deliveries attempted, by event type and outcome.",
            ["type", "outcome"],
            registry=registry,
        )
        self.webhooks_waiting = Gauge(
            "broker_webhooks_waiting",
            "Webhook events that are not delivered yet.",
            registry=registry,
        )
        self.audit_waiting = Gauge(
            "broker_audit_records_waiting",
            "Audit records in memory that are not written yet; a crash loses them.",
            registry=registry,
        )
        self.audit_dropped = Counter(
            "broker_audit_records_dropped_total",
            "Audit records lost because PostgreSQL was unavailable for too long or too slow.",
            registry=registry,
        )
        self.audit_left_out = Counter(
            "broker_audit_records_left_out_total",
            "Unauthenticated requests over the cap per minute, which only summary records count.",
            registry=registry,
        )
        self.rate_limited = CounterFamily(
            "broker_rate_limited_total",
            "Requests rejected by a rate or concurrency limit, by caller (-: not authenticated).",
            ["caller", "limit"],
            registry=registry,
        )
        self.audit_seals = Counter(
            "broker_audit_seals_total",
            "Audit batches that this replica has written, each with its MAC.",
            registry=registry,
        )
        self.audit_head = Gauge(
            "broker_audit_head",
            "Number of the newest audit batch that this replica has written.",
            registry=registry,
        )
        self.audit_seals_lost = Counter(
            "broker_audit_seals_lost_total",
            "Audit batches written by this replica that were later missing from the chain.",
            registry=registry,
        )
        self.audit_faults = Counter(
            "broker_audit_faults_total",
            "Faults found in the audit trail when retention deleted its oldest part.",
            registry=registry,
        )
        self.audit_unverified = Counter(
            "broker_audit_unverified_total",
            "Audit batches that retention deleted without the key to verify them.",
            registry=registry,
        )
        self.upkeep_failures = Counter(
            "broker_upkeep_failures_total",
            "Times that a periodic job began to fail; it is retried until it works.",
            ["chore"],
            registry=registry,
        )
        self.issuer_up = Gauge(
            "broker_issuer_up",
            "1 if the last fetch of the issuer's signing keys succeeded, else 0.",
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
            "Refused JWTs, by use (caller or subject) and reason.",
            ["use", "reason"],
            registry=registry,
        )
