"""What the dashboard shows: its rows and panels, as `generate.py` makes Grafana's JSON of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Panel:
    """One panel. A query stands under its legend."""

    title: str
    description: str
    unit: str
    """Grafana's own id of it."""
    queries: Mapping[str, str]
    kind: str = "timeseries"
    width: int = 8
    """Of 24."""
    is_stacked: bool = False


def own(metric: str, *matchers: str) -> str:
    """The series of the replicas that are chosen at the top of the dashboard."""
    chosen = ('namespace=~"$namespace"', 'job=~"$job"', 'instance=~"$instance"')
    return metric + "{" + ",".join((*chosen, *matchers)) + "}"


def rate(by: str, metric: str, *matchers: str) -> str:
    """So many a second, by some labels."""
    return f"sum by ({by}) (rate({own(metric, *matchers)}[$__rate_interval]))"


def quantile(q: float, by: str, metric: str, *matchers: str) -> str:
    """Of a histogram."""
    labels = f"{by}, le" if by else "le"
    return f"histogram_quantile({q}, {rate(labels, metric + '_bucket', *matchers)})"


_REQUESTS = "broker_token_requests_total"
_HTTP = "broker_http_request_duration_seconds"
_REFRESHES = "broker_token_refreshes_total"
_CALLER = 'caller=~"$caller"'
_FAILED = 'outcome=~"google_unavailable|storage_unavailable|client_misconfigured"'
_COUNTED = 'outcome=~"ok|google_unavailable|storage_unavailable|client_misconfigured"'
_OK = 'outcome="ok"'
_CONNECTED = 'outcome="connected"'
_ACTIVE = 'status="active"'
_NEEDS_CONSENT = 'status="reauthorization_required"'
_TOKEN_ROUTE = ('listener="internal"', 'route="/v1/users/{user_id}/token"')


def _in_range(*matchers: str) -> str:
    """Requests to the public or internal listener, in the time that is shown."""
    return f"sum(increase({own(_HTTP + '_count', *matchers)}[$__range]))"


OVERVIEW = (
    Panel(
        "Replicas",
        "Replicas that answer Prometheus.",
        "short",
        {"replicas": f"count({own('broker_build_info')})"},
        "stat",
        4,
    ),
    Panel(
        "Releases",
        "How many replicas run each release. More than one lasts only as long as a roll-out.",
        "short",
        {"{{version}}": f"count by (version) ({own('broker_build_info')})"},
        "stat",
        4,
    ),
    Panel(
        "Alerts firing",
        "Alerts of deploy/alerts that fire now; their runbooks say what to do.",
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
        "Of 30 days, at an objective of 99.9 % of the requests for a token that could be met. "
        "Needs the recording rules of deploy/alerts/slo.yaml.",
        "percentunit",
        {
            "left": "1 - max(broker:token_errors:ratio_rate30d"
            '{namespace=~"$namespace",job=~"$job"}) / 0.001'
        },
        "stat",
        4,
    ),
    Panel(
        "Tokens handed out",
        "A second, by all replicas.",
        "reqps",
        {"tokens": f"sum(rate({own(_REQUESTS, _CALLER, _OK)}[$__rate_interval]))"},
        "stat",
        4,
    ),
    Panel(
        "Active grants",
        "Grants with which tokens can be had now.",
        "short",
        {"active": f"max({own('broker_grants', _ACTIVE)})"},
        "stat",
        4,
    ),
)

TOKENS = (
    Panel(
        "Token requests by caller",
        "Requests for a token that passed the caller's permissions; each item of a batch is one.",
        "reqps",
        {"{{caller}}": rate("caller", _REQUESTS, _CALLER)},
        is_stacked=True,
    ),
    Panel(
        "Token requests by outcome",
        "ok, or the code of the problem that the caller was given.",
        "reqps",
        {"{{outcome}}": rate("outcome", _REQUESTS, _CALLER)},
    ),
    Panel(
        "Failed requests by reason",
        "Share of the requests for a token that could be met and were answered 503. "
        "The objective is 0.1 %.",
        "percentunit",
        {
            "{{outcome}}": f"{rate('outcome', _REQUESTS, _CALLER, _FAILED)} / ignoring (outcome) "
            f"group_left () sum(rate({own(_REQUESTS, _CALLER, _COUNTED)}[$__rate_interval]))"
        },
        is_stacked=True,
    ),
    Panel(
        "Time to a token",
        "How long GET …/token took, cached or not.",
        "s",
        {
            "p50": quantile(0.5, "", _HTTP, *_TOKEN_ROUTE, 'status="200"'),
            "p99": quantile(0.99, "", _HTTP, *_TOKEN_ROUTE, 'status="200"'),
        },
    ),
    Panel(
        "Requests by listener",
        "All requests, also those that are refused.",
        "reqps",
        {"{{listener}}": rate("listener", _HTTP + "_count")},
    ),
    Panel(
        "Slowest requests by listener",
        "One request in a hundred takes this long or longer.",
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
        "Refreshes under way",
        "Begun and not finished. A growing number means that Google, or a lock, is slow.",
        "short",
        {"{{instance}}": f"sum by (instance) ({own('broker_token_refreshes_in_flight')})"},
    ),
    Panel(
        "Refreshes for each token handed out",
        "How much of what is handed out is not cached.",
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
        "How long calls took, with those that failed.",
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
        "By endpoint.",
        "reqps",
        {"{{endpoint}}": rate("endpoint", "broker_google_requests_total")},
    ),
    Panel(
        "Google's answers",
        "Calls that were not ok, by reason.",
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
        "In the table, counted every 15 seconds by each replica.",
        "short",
        {"{{status}}": f"max by (status) ({own('broker_grants')})"},
    ),
    Panel(
        "Grants that came to need a consent",
        "Growth of reauthorization_required within an hour.",
        "short",
        {"in an hour": f"max(delta({own('broker_grants', _NEEDS_CONSENT)}[1h]))"},
    ),
    Panel(
        "Revocations",
        "Grants revoked here, and what Google was told of. failed: answered 503.",
        "ops",
        {"{{origin}} {{outcome}}": rate("origin, outcome", "broker_revocations_total") + " > 0"},
    ),
)

CONSENTS = (
    Panel(
        "Consent funnel",
        "In the time shown: links that callers got, pages that were opened, people who were sent "
        "to Google, and accounts that were connected.",
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
        "How consents ended.",
        "ops",
        {"{{outcome}}": rate("outcome", "broker_consents_total")},
        width=12,
    ),
)

SOURCES = (
    Panel(
        "OAuth client's source",
        "Whether Vault, the file or the environment can be read, at every replica.",
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
        "Whether the file on disk is the one in force, at every replica.",
        "bool_yes_no",
        {"in force": f"min({own('broker_callers_file_up')})"},
        "state-timeline",
        6,
    ),
    Panel(
        "Issuers",
        "Whether the keys of each issuer could be had, at every replica.",
        "bool_yes_no",
        {"{{issuer}}": f"min by (issuer) ({own('broker_issuer_up')})"},
        "state-timeline",
        6,
    ),
)

STORAGE = (
    Panel(
        "PostgreSQL is reached",
        "By each replica.",
        "bool_yes_no",
        {"{{instance}}": own("broker_storage_up")},
        "state-timeline",
    ),
    Panel(
        "Connections to PostgreSQL",
        "In use and idle, and how many may be open, at all replicas together.",
        "short",
        {
            "{{state}}": f"sum by (state) ({own('broker_storage_connections')})",
            "at most": f"sum({own('broker_storage_connections_max')})",
        },
    ),
    Panel(
        "Waiting for a connection",
        "pool: all connections are in use. share: one caller, address or job uses all of its own.",
        "short",
        {"{{limit}}": f"sum by (limit) ({own('broker_storage_waiting')})"},
    ),
    Panel(
        "Failovers and lost commits",
        "Within an hour, as one replica noticed them.",
        "short",
        {
            "failovers": f"max(increase({own('broker_storage_failovers_total')}[1h]))",
            "lost: {{kind}}": f"max by (kind) (increase({own('broker_lost_commits_total')}[1h]))",
        },
        width=12,
    ),
    Panel(
        "Upkeep failures",
        "Chores that began to fail, within an hour.",
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
        "Batches of records that were written and sealed.",
        "ops",
        {"batches": f"sum(rate({own('broker_audit_seals_total')}[$__rate_interval]))"},
    ),
    Panel(
        "Audit losses and faults",
        "Within an hour. Everything but left out should be 0.",
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
        "Attempts to tell the product of changes.",
        "ops",
        {"{{outcome}}": rate("outcome", "broker_webhooks_total")},
        width=12,
    ),
    Panel(
        "Webhooks waiting",
        "Events that the product was not told of yet.",
        "short",
        {"waiting": f"max({own('broker_webhooks_waiting')})"},
        width=12,
    ),
)

SECURITY = (
    Panel(
        "Refusals",
        "401: no or a bad credential. 403: not allowed to this caller. 429: too much.",
        "reqps",
        {
            "{{listener}} {{status}}": rate(
                "listener, status", _HTTP + "_count", 'status=~"401|403|429"'
            )
        },
        width=6,
    ),
    Panel(
        "Requests held back",
        "429 by limit; the caller - is who is unknown.",
        "reqps",
        {"{{caller}} {{limit}}": rate("caller, limit", "broker_rate_limited_total") + " > 0"},
        width=6,
    ),
    Panel(
        "Security events",
        "Of Google's, by what they did; none: the token was refused.",
        "ops",
        {"{{event}} {{outcome}}": rate("event, outcome", "broker_security_events_total") + " > 0"},
        width=6,
    ),
    Panel(
        "Refused JWTs",
        "Shown by a caller for itself or as a subject, by reason.",
        "ops",
        {"{{use}} {{reason}}": rate("use, reason", "broker_jwts_refused_total") + " > 0"},
        width=6,
    ),
)

PROCESS = (
    Panel(
        "CPU",
        "Cores that each replica uses. One is the most that an event loop can.",
        "short",
        {"{{instance}}": rate("instance", "process_cpu_seconds_total")},
    ),
    Panel(
        "Memory",
        "Resident.",
        "bytes",
        {"{{instance}}": own("process_resident_memory_bytes")},
    ),
    Panel(
        "Open files",
        "Sockets and files, as a share of what the process may open.",
        "percentunit",
        {"{{instance}}": f"{own('process_open_fds')} / {own('process_max_fds')}"},
    ),
    Panel(
        "Event-loop lag",
        "How late timers run; every request waits as long.",
        "s",
        {
            "p50": quantile(0.5, "", "broker_event_loop_lag_seconds"),
            "p99": quantile(0.99, "", "broker_event_loop_lag_seconds"),
        },
    ),
    Panel(
        "Garbage collections",
        "Of Python's, by generation.",
        "ops",
        {"generation {{generation}}": rate("generation", "python_gc_collections_total")},
    ),
    Panel(
        "Uptime",
        "Since each replica started.",
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
