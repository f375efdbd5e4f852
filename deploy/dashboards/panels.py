"""The rows and panels of the dashboard; `generate.py` writes Grafana's JSON from them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Panel:
    """One panel. `queries` is by legend."""

    title: str
    description: str
    unit: str
    """Grafana's id of the unit."""
    queries: Mapping[str, str]
    kind: str = "timeseries"
    width: int = 8
    """Columns, of 24."""
    is_stacked: bool = False


def own(metric: str, *matchers: str) -> str:
    """Return the series of the replicas selected at the top of the dashboard."""
    chosen = ('namespace=~"$namespace"', 'job=~"$job"', 'instance=~"$instance"')
    return metric + "{" + ",".join((*chosen, *matchers)) + "}"


def rate(by: str, metric: str, *matchers: str) -> str:
    """Return the rate per second, by these labels."""
    return f"sum by ({by}) (rate({own(metric, *matchers)}[$__rate_interval]))"


def quantile(q: float, by: str, metric: str, *matchers: str) -> str:
    """Return a quantile of a histogram."""
    labels = f"{by}, le" if by else "le"
    return f"histogram_quantile({q}, {rate(labels, metric + '_bucket', *matchers)})"


_REQUESTS = "broker_token_requests_total"
_HTTP = "broker_http_request_duration_seconds"
_REFRESHES = "broker_token_refreshes_total"
_CALLER = 'caller=~"$caller"'
_FAILURES = (
    "internal_error|google_unavailable|storage_unavailable|issuer_unavailable|client_misconfigured"
)
_FAILED = f'outcome=~"{_FAILURES}"'
_COUNTED = f'outcome=~"ok|{_FAILURES}"'
"""Both as in deploy/alerts/slo.yaml."""

_OK = 'outcome="ok"'
_CONNECTED = 'outcome="connected"'
_ACTIVE = 'status="active"'
_NEEDS_CONSENT = 'status="reauthorization_required"'
_TOKEN_ROUTE = ('listener="internal"', 'route="/v1/users/{user_id}/token"')


def _in_range(*matchers: str) -> str:
    """Return the number of requests to the public or internal listener, in the time shown."""
    return f"sum(increase({own(_HTTP + '_count', *matchers)}[$__range]))"


OVERVIEW = (
    Panel(
        "Replicas",
        "Replicas that Prometheus can scrape.",
        "short",
        {"replicas": f"count({own('broker_build_info')})"},
        "stat",
        4,
    ),
    Panel(
        "Releases",
        "How many replicas run each release. More than one release is normal only in a roll-out.",
        "short",
        {"{{version}}": f"count by (version) ({own('broker_build_info')})"},
        "stat",
        4,
    ),
    Panel(
        "Alerts firing",
        "Alerts of deploy/alerts that fire now; docs/how-to/runbooks.md says what to do.",
        "short",
        {
            "alerts": 'count(ALERTS{alertname=~"TokenBroker.*",alertstate="firing",'
            'namespace=~"$namespace",job=~"$job"}) or vector(0)'
        },
        "stat",
        4,
    ),
    Panel(
        "Error budget left",
        "Share of the error budget of 30 days that is left: 0.1 % of the token requests that could "
        "have succeeded may fail. Needs the recording rules of deploy/alerts/slo.yaml, and as many "
        "days of data.",
        "percentunit",
        {
            "left": "1 - max(broker:token_errors:ratio30d"
            '{namespace=~"$namespace",job=~"$job"}) / 0.001'
        },
        "stat",
        4,
    ),
    Panel(
        "Tokens handed out",
        "Per second, by all replicas.",
        "reqps",
        {"tokens": f"sum(rate({own(_REQUESTS, _CALLER, _OK)}[$__rate_interval]))"},
        "stat",
        4,
    ),
    Panel(
        "Active grants",
        "Grants from which a token can be issued now.",
        "short",
        {"active": f"max({own('broker_grants', _ACTIVE)})"},
        "stat",
        4,
    ),
)

TOKENS = (
    Panel(
        "Token requests by caller",
        "Requests for a token that the caller's policy allows; each item of a batch is one. "
        "The caller - stands for requests that failed before their caller was known.",
        "reqps",
        {"{{caller}}": rate("caller", _REQUESTS, _CALLER)},
        is_stacked=True,
    ),
    Panel(
        "Token requests by outcome",
        "ok, or the code of the problem that the caller got.",
        "reqps",
        {"{{outcome}}": rate("outcome", _REQUESTS, _CALLER)},
    ),
    Panel(
        "Failed requests by reason",
        "Share of the token requests that could have succeeded and were answered 500 or 503. "
        "The objective is at most 0.1 %.",
        "percentunit",
        {
            "{{outcome}}": f"{rate('outcome', _REQUESTS, _CALLER, _FAILED)} / ignoring (outcome) "
            f"group_left () sum(rate({own(_REQUESTS, _CALLER, _COUNTED)}[$__rate_interval]))"
        },
        is_stacked=True,
    ),
    Panel(
        "Time to a token",
        "How long GET /v1/users/{user_id}/token took, from the cache or not.",
        "s",
        {
            "p50": quantile(0.5, "", _HTTP, *_TOKEN_ROUTE, 'status="200"'),
            "p99": quantile(0.99, "", _HTTP, *_TOKEN_ROUTE, 'status="200"'),
        },
    ),
    Panel(
        "Requests by listener",
        "All requests, including refused ones.",
        "reqps",
        {"{{listener}}": rate("listener", _HTTP + "_count")},
    ),
    Panel(
        "Slowest requests by listener",
        "99th percentile of the time to answer.",
        "s",
        {"{{listener}} p99": quantile(0.99, "listener", _HTTP)},
    ),
)

REFRESHES = (
    Panel(
        "Refreshes by outcome",
        "How refreshes at Google ended. grant_refused: the user must consent again; "
        "client_refused: our client id or secret is wrong.",
        "ops",
        {"{{outcome}}": rate("outcome", _REFRESHES)},
    ),
    Panel(
        "Refreshes in flight",
        "Begun and not finished. A growing number means that Google or PostgreSQL is slow.",
        "short",
        {"{{instance}}": f"sum by (instance) ({own('broker_token_refreshes_in_flight')})"},
    ),
    Panel(
        "Refreshes per token handed out",
        "Low while most tokens come from the cache.",
        "percentunit",
        {
            "refreshes": f"sum(rate({own(_REFRESHES)}[$__rate_interval])) / "
            f"sum(rate({own(_REQUESTS, _OK)}[$__rate_interval]))"
        },
    ),
)

GOOGLE = (
    Panel(
        "Google's latency",
        "How long calls took, including failed ones.",
        "s",
        {
            "{{endpoint}} p50": quantile(0.5, "endpoint", "broker_google_request_duration_seconds"),
            "{{endpoint}} p99": quantile(
                0.99, "endpoint", "broker_google_request_duration_seconds"
            ),
        },
    ),
    Panel(
        "Calls to Google",
        "All calls, by endpoint.",
        "reqps",
        {"{{endpoint}}": rate("endpoint", "broker_google_requests_total")},
    ),
    Panel(
        "Google's errors",
        "Failed calls, by endpoint and reason.",
        "reqps",
        {
            "{{endpoint}} {{outcome}}": rate(
                "endpoint, outcome", "broker_google_requests_total", 'outcome!="ok"'
            )
            + " > 0"
        },
    ),
)

GRANTS = (
    Panel(
        "Grants by status",
        "Rows of the grants table; each replica counts them every 15 seconds.",
        "short",
        {"{{status}}": f"max by (status) ({own('broker_grants')})"},
    ),
    Panel(
        "Grants that newly need a consent",
        "Growth of the number of grants in reauthorization_required within an hour.",
        "short",
        {"in an hour": f"max(delta({own('broker_grants', _NEEDS_CONSENT)}[1h]))"},
    ),
    Panel(
        "Revocations",
        "revoked: in the broker. told, retried, refused: at Google. failed: answered 503.",
        "ops",
        {"{{origin}} {{outcome}}": rate("origin, outcome", "broker_revocations_total") + " > 0"},
    ),
)

CONSENTS = (
    Panel(
        "Consent funnel",
        "In the time shown: links that callers created, links that were opened, browsers that came "
        "back from Google, and accounts that were connected.",
        "short",
        {
            "links": _in_range(
                'route="/v1/users/{user_id}/connect-links"', 'method="POST"', 'status="201"'
            ),
            "opened": _in_range(
                'route="/auth/google/authorize/{user_id}"', 'method="GET"', 'status=~"200|303"'
            ),
            "back from Google": _in_range('route="/auth/google/callback"', 'method="GET"'),
            "connected": f"sum(increase({own('broker_consents_total', _CONNECTED)}[$__range]))",
        },
        "bargauge",
        12,
    ),
    Panel(
        "Consents by outcome",
        "Consents that ended, by how.",
        "ops",
        {"{{outcome}}": rate("outcome", "broker_consents_total")},
        width=12,
    ),
)

SOURCES = (
    Panel(
        "OAuth client's source",
        "Up while every replica can read the client from Vault, AWS, the file or the environment.",
        "bool_yes_no",
        {"{{source}}": f"min by (source) ({own('broker_secret_source_up')})"},
        "state-timeline",
        6,
    ),
    Panel(
        "Version of the OAuth client",
        "The same at every replica within ten seconds of a rotation.",
        "short",
        {"{{instance}}": own("broker_client_secret_version")},
        width=6,
    ),
    Panel(
        "Callers file",
        "Up while the file on disk is the one in force at every replica.",
        "bool_yes_no",
        {"in force": f"min({own('broker_callers_file_up')})"},
        "state-timeline",
        6,
    ),
    Panel(
        "Issuers",
        "Up while every replica can fetch the issuer's signing keys.",
        "bool_yes_no",
        {"{{issuer}}": f"min by (issuer) ({own('broker_issuer_up')})"},
        "state-timeline",
        6,
    ),
)

STORAGE = (
    Panel(
        "PostgreSQL",
        "Up while the replica can reach the primary.",
        "bool_yes_no",
        {"{{instance}}": own("broker_storage_up")},
        "state-timeline",
    ),
    Panel(
        "Connections to PostgreSQL",
        "In use and idle, of all replicas together, and how many they may open.",
        "short",
        {
            "{{state}}": f"sum by (state) ({own('broker_storage_connections')})",
            "at most": f"sum({own('broker_storage_connections_max')})",
        },
    ),
    Panel(
        "Waiting for a connection",
        "Requests that wait. pool: all connections are in use. share: one caller, address or job "
        "uses its whole share.",
        "short",
        {"{{limit}}": f"sum by (limit) ({own('broker_storage_waiting')})"},
    ),
    Panel(
        "Failovers and lost commits",
        "Within an hour. All replicas notice the same events, so the largest count is shown.",
        "short",
        {
            "failovers": f"max(increase({own('broker_storage_failovers_total')}[1h]))",
            "lost: {{kind}}": f"max by (kind) (increase({own('broker_lost_commits_total')}[1h]))",
        },
        width=12,
    ),
    Panel(
        "Maintenance failures",
        "Maintenance tasks that began to fail within an hour.",
        "short",
        {"{{chore}}": f"sum by (chore) (increase({own('broker_upkeep_failures_total')}[1h]))"},
        width=12,
    ),
)

AUDIT = (
    Panel(
        "Audit records waiting",
        "Not written yet; a crash would lose them.",
        "short",
        {"{{instance}}": own("broker_audit_records_waiting")},
    ),
    Panel(
        "Audit batches",
        "Batches of audit records that were written, each with its MAC.",
        "ops",
        {"batches": f"sum(rate({own('broker_audit_seals_total')}[$__rate_interval]))"},
    ),
    Panel(
        "Audit losses and faults",
        "Within an hour. left out: unauthenticated requests that were counted, not recorded "
        "individually. All others should be 0.",
        "short",
        {
            "dropped": f"sum(increase({own('broker_audit_records_dropped_total')}[1h]))",
            "left out": f"sum(increase({own('broker_audit_records_left_out_total')}[1h]))",
            "seals lost": f"sum(increase({own('broker_audit_seals_lost_total')}[1h]))",
            "faults": f"sum(increase({own('broker_audit_faults_total')}[1h]))",
            "unverified": f"sum(increase({own('broker_audit_unverified_total')}[1h]))",
        },
    ),
)

WEBHOOKS = (
    Panel(
        "Webhooks by outcome",
        "Attempts to deliver a webhook, by outcome.",
        "ops",
        {"{{outcome}}": rate("outcome", "broker_webhooks_total")},
        width=12,
    ),
    Panel(
        "Webhooks waiting",
        "Events that are not delivered yet.",
        "short",
        {"waiting": f"max({own('broker_webhooks_waiting')})"},
        width=12,
    ),
)

SECURITY = (
    Panel(
        "Refusals",
        "401: no or a bad credential. 403: not allowed by the caller's policy. 429: rate limited.",
        "reqps",
        {
            "{{listener}} {{status}}": rate(
                "listener, status", _HTTP + "_count", 'status=~"401|403|429"'
            )
        },
        width=6,
    ),
    Panel(
        "Rate-limited requests",
        "Requests that got 429, by caller and limit; the caller - is unauthenticated.",
        "reqps",
        {"{{caller}} {{limit}}": rate("caller, limit", "broker_rate_limited_total") + " > 0"},
        width=6,
    ),
    Panel(
        "Security events",
        "Security events from Google, by outcome; the event none is a token that was refused.",
        "ops",
        {"{{event}} {{outcome}}": rate("event, outcome", "broker_security_events_total") + " > 0"},
        width=6,
    ),
    Panel(
        "Refused JWTs",
        "JWTs of callers and of subjects that were refused, by reason.",
        "ops",
        {"{{use}} {{reason}}": rate("use, reason", "broker_jwts_refused_total") + " > 0"},
        width=6,
    ),
)

PROCESS = (
    Panel(
        "CPU",
        "Cores that each replica uses. An event loop can use one at most.",
        "short",
        {"{{instance}}": rate("instance", "process_cpu_seconds_total")},
    ),
    Panel(
        "Memory",
        "Resident memory of each replica.",
        "bytes",
        {"{{instance}}": own("process_resident_memory_bytes")},
    ),
    Panel(
        "Open files",
        "Sockets and files, as a share of the process's limit.",
        "percentunit",
        {"{{instance}}": f"{own('process_open_fds')} / {own('process_max_fds')}"},
    ),
    Panel(
        "Event-loop lag",
        "How late the event loop runs timers; every request waits as long.",
        "s",
        {
            "p50": quantile(0.5, "", "broker_event_loop_lag_seconds"),
            "p99": quantile(0.99, "", "broker_event_loop_lag_seconds"),
        },
    ),
    Panel(
        "Garbage collections",
        "Python's garbage collections, by generation.",
        "ops",
        {"generation {{generation}}": rate("generation", "python_gc_collections_total")},
    ),
    Panel(
        "Uptime",
        "Time since each replica started.",
        "s",
        {"{{instance}}": f"time() - {own('process_start_time_seconds')}"},
    ),
)

ROWS: Sequence[tuple[str, Sequence[Panel]]] = (
    ("Overview", OVERVIEW),
    ("Token requests", TOKENS),
    ("Refreshes", REFRESHES),
    ("Google", GOOGLE),
    ("Grants", GRANTS),
    ("Consents", CONSENTS),
    ("OAuth client, callers, issuers", SOURCES),
    ("Storage", STORAGE),
    ("Audit trail", AUDIT),
    ("Webhooks", WEBHOOKS),
    ("Security", SECURITY),
    ("Process", PROCESS),
)
