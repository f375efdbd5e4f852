"""Series that make each alert fire, and series that do not, as Prometheus would scrape them.

Each series stands for two replicas of one service, `a` and `b`, unless its name begins with one of
these: an alert per replica would appear twice. Values are in promtool's notation, one per minute.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

Series = Mapping[str, str]


@dataclass(frozen=True)
class Firing:
    """The one expected alert."""

    says: Sequence[str] = ()
    """The values of each `{{ … }}` of the description, in order."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Labels in addition to the service's and the severity."""
    service: Mapping[str, str] = field(
        default_factory=lambda: {"job": "token-broker", "namespace": "prod"}
    )


@dataclass(frozen=True)
class Case:
    """Series, and the state of the alert at a time."""

    series: Series
    at: str
    firing: Firing | None = None


def fires(series: Series, at: str, *says: str, **labels: str) -> Case:
    return Case(series, at, Firing(says, labels))


def silent(series: Series, at: str) -> Case:
    return Case(series, at)


_LAST_RELEASE = 'broker_build_info{version="0.1.0"}'
_REFRESHES = 'broker_token_refreshes_total{outcome="%s"}'
_EVENTS = 'broker_security_events_total{event="%s",outcome="%s"}'
_LIMITED = 'broker_rate_limited_total{caller="%s",limit="%s"}'
_REVOCATIONS = 'broker_revocations_total{origin="caller",outcome="%s"}'
_WEBHOOKS = 'broker_webhooks_total{type="grant.revoked",outcome="%s"}'
_CRASHES = (
    'broker_http_request_duration_seconds_count{listener="internal",route="/v1/tokens",'
    'method="POST",status="%s"}'
)
_LAG = 'broker_event_loop_lag_seconds_bucket{le="%s"}'


def _requests(**a_step: float) -> Series:
    """Return series that grow by these requests of each outcome a minute, at each replica; for
    three days.
    """
    return {
        f'broker_token_requests_total{{caller="mail",outcome="{outcome}"}}': f"0+{number}x4500"
        for outcome, number in a_step.items()
    }


def _lag(within: int) -> Series:
    """Return series of timers a minute; `within` of them ran less than 0.25 s late."""
    return {
        _LAG % "0.25": f"0+{within}x30",
        _LAG % "0.5": "0+1000x30",
        _LAG % "+Inf": "0+1000x30",
    }


AVAILABILITY = {
    "TokenBrokerDown": [
        fires({_LAST_RELEASE: "1x5 stale"}, "9m", "2"),
        Case({}, "9m", Firing(["0"], service={})),
        silent({_LAST_RELEASE: "1x30"}, "20m"),
        silent({f"a {_LAST_RELEASE}": "1x5 stale", f"b {_LAST_RELEASE}": "1x30"}, "20m"),
    ],
    "TokenBrokerReplicaDown": [
        fires({_LAST_RELEASE: "1x5", "a up": "1x30", "b up": "1x5 0x25"}, "12m", "1"),
        fires({_LAST_RELEASE: "1x5", "up": "1x5 0x25"}, "12m", "2"),
        silent({_LAST_RELEASE: "1x30", "up": "1x30"}, "12m"),
        silent({_LAST_RELEASE: "1x30", "up": "1x5 0x2 1x25"}, "12m"),
        silent({'up{job="other"}': "0x30", _LAST_RELEASE: "1x30"}, "12m"),
    ],
    "TokenBrokerRestarts": [
        fires({_LAST_RELEASE: "1x30", "process_start_time_seconds": "1x5 2x5 3x5 4x9"}, "22m", "3"),
        silent({_LAST_RELEASE: "1x30", "process_start_time_seconds": "1x5 2x20"}, "22m"),
        silent({"process_start_time_seconds": "1x5 2x5 3x5 4x9"}, "22m"),
    ],
    "TokenBrokerInternalErrors": [
        fires({_CRASHES % "500": "_x3 1x20"}, "6m", "internal", "2", listener="internal"),
        fires({_CRASHES % "500": "0x20 3x20"}, "25m", "internal", "6", listener="internal"),
        silent({_CRASHES % "500": "3x60"}, "30m"),
        silent({_CRASHES % "503": "0+1x60"}, "30m"),
    ],
    "TokenBrokerEventLoopBlocked": [
        fires(_lag(within=900), "20m", "475ms"),
        silent(_lag(within=999), "20m"),
        silent(_lag(within=900), "8m"),
    ],
}

SLO = {
    "TokenBrokerErrorBudgetBurnsFast": [
        # Slightly more than 14.4 times the allowed rate.
        fires(_requests(ok=98, google_unavailable=2), "75m", "2%"),
        # More than 6 times, for long enough.
        fires(_requests(ok=992, storage_unavailable=4, client_misconfigured=4), "45m", "0.8%"),
        # Whatever the cause.
        fires(_requests(ok=98, internal_error=1, issuer_unavailable=1), "75m", "2%"),
        # Slower.
        silent(_requests(ok=995, google_unavailable=5), "75m"),
        # The same rate, but too little traffic.
        silent(_requests(ok=4.9, google_unavailable=0.1), "75m"),
        # Errors of users and callers are no failures of the service.
        silent(
            _requests(ok=50, reauthorization_required=20, grant_not_found=20, invalid_request=10),
            "75m",
        ),
        # A short spike: the longer windows are good.
        silent(
            {
                **_requests(ok=1000),
                'broker_token_requests_total{caller="mail",outcome="google_unavailable"}': (
                    "0x57 100 200 300x20"
                ),
            },
            "60m",
        ),
        # Over: the shorter windows are good.
        silent(
            {
                **_requests(ok=100),
                'broker_token_requests_total{caller="mail",outcome="google_unavailable"}': (
                    "0+5x20 100x400"
                ),
            },
            "60m",
        ),
    ],
    "TokenBrokerNoTokens": [
        fires(
            {
                'broker_token_requests_total{caller="mail",outcome="ok"}': "5x60",
                'broker_token_requests_total{caller="mail",outcome="google_unavailable"}': "0+3x60",
            },
            "15m",
            "100m",
        ),
        fires(_requests(ok=0, internal_error=3), "15m", "100m"),
        fires(_requests(ok=0, issuer_unavailable=3), "15m", "100m"),
        silent(_requests(ok=1, google_unavailable=3), "15m"),
        silent(_requests(ok=0, google_unavailable=0), "15m"),
        silent(_requests(ok=0, reauthorization_required=3), "15m"),
    ],
}

SLO_OF_DAYS = {
    "TokenBrokerErrorBudgetBurnsSlowly": [
        # More than 3 times the allowed rate, for a day.
        fires(_requests(ok=99.6, google_unavailable=0.4), "26h", "0.4%"),
        # More than 1 time, for three days.
        fires(_requests(ok=99.85, storage_unavailable=0.15), "74h", "0.15%"),
        # Within the objective.
        silent(_requests(ok=99.95, google_unavailable=0.05), "20h"),
        # Too little traffic.
        silent(_requests(ok=0.996, google_unavailable=0.004), "20h"),
    ],
}

GOOGLE = {
    "TokenBrokerClientRefused": [
        # The first event, which creates the series.
        fires({_REFRESHES % "client_refused": "_ _ _ 1x30"}, "5m", "2", outcome="client_refused"),
        fires({_REFRESHES % "client_refused": "0x20 1x30"}, "25m", "2", outcome="client_refused"),
        silent({_REFRESHES % "client_refused": "7x60"}, "30m"),
        silent({_REFRESHES % "unavailable": "0+1x60"}, "30m"),
    ],
    "TokenBrokerRefreshesFail": [
        fires(
            {_REFRESHES % "unavailable": "0+3x60", _REFRESHES % "refreshed": "0+1x60"},
            "30m",
            "75%",
        ),
        silent({_REFRESHES % "unavailable": "0+1x60", _REFRESHES % "refreshed": "0+3x60"}, "30m"),
        silent({_REFRESHES % "unavailable": "0x10 4x50", _REFRESHES % "refreshed": "0x60"}, "16m"),
    ],
    "TokenBrokerGrantsRefused": [
        fires({_REFRESHES % "grant_refused": "0+1x120"}, "100m", "120"),
        silent({_REFRESHES % "grant_refused": "0x50 9x70"}, "100m"),
    ],
    "TokenBrokerTokenTooWide": [
        fires({_REFRESHES % "too_wide": "_ _ _ 1x30"}, "5m", "2", outcome="too_wide"),
        silent({_REFRESHES % "too_wide": "1x60"}, "30m"),
    ],
    "TokenBrokerSecretSourceDown": [
        fires(
            {'a broker_secret_source_up{source="vault"}': "0x60",
             'b broker_secret_source_up{source="vault"}': "1x60"},
            "20m", "vault", source="vault",
        ),
        silent({'broker_secret_source_up{source="vault"}': "1x60"}, "20m"),
        silent({'broker_secret_source_up{source="vault"}': "1x10 0x10 1x40"}, "30m"),
    ],
    "TokenBrokerSecurityEventsRefused": [
        fires({_EVENTS % ("none", "aud"): "0+1x120"}, "100m", "120"),
        silent({_EVENTS % ("none", "aud"): "0x50 4x70"}, "100m"),
        silent({_EVENTS % ("none", "malformed"): "0+1x120"}, "100m"),
    ],
    "TokenBrokerAccountsHijacked": [
        fires({_EVENTS % ("account-disabled", "erased"): "_ _ _ 1x30"}, "5m", "2"),
        silent({_EVENTS % ("account-disabled", "erased"): "1x120"}, "100m"),
        silent({_EVENTS % ("account-disabled", "held_back"): "0+1x120"}, "100m"),
    ],
}  # fmt: skip

CALLERS = {
    "TokenBrokerCallersFileRefused": [
        fires({"a broker_callers_file_up": "0x60", "b broker_callers_file_up": "1x60"}, "8m"),
        silent({"broker_callers_file_up": "1x60"}, "8m"),
        silent({"broker_callers_file_up": "0x3 1x60"}, "8m"),
    ],
    "TokenBrokerIssuerDown": [
        fires(
            {'broker_issuer_up{issuer="https://sts.example.org"}': "0x60"},
            "15m", "https://sts.example.org", issuer="https://sts.example.org",
        ),
        silent({'broker_issuer_up{issuer="https://sts.example.org"}': "1x60"}, "15m"),
    ],
    "TokenBrokerCallerLimited": [
        fires({_LIMITED % ("mail", "rate"): "0+10x60"}, "30m", "mail", "200", caller="mail"),
        silent({_LIMITED % ("mail", "rate"): "0+1x60"}, "30m"),
        silent({_LIMITED % ("-", "failures"): "0+90x60"}, "30m"),
    ],
    "TokenBrokerAddressesLimited": [
        fires({_LIMITED % ("-", "address"): "0+10x60"}, "30m", "200"),
        # A user who reloads a page.
        silent({_LIMITED % ("-", "address"): "0x20 5x40"}, "25m"),
    ],
    "TokenBrokerCredentialsGuessed": [
        fires({_LIMITED % ("-", "failures"): "_ _ _ 1x30"}, "5m", "2"),
        silent({_LIMITED % ("-", "failures"): "1x60"}, "30m"),
    ],
}  # fmt: skip

STORAGE = {
    "TokenBrokerStorageDown": [
        fires({"broker_storage_up": "1x5 0x60"}, "10m", "2"),
        fires({"a broker_storage_up": "0x60", "b broker_storage_up": "1x60"}, "10m", "1"),
        silent({"broker_storage_up": "1x60"}, "10m"),
    ],
    "TokenBrokerConnectionsExhausted": [
        fires({'broker_storage_waiting{limit="pool"}': "0x10 3x60"}, "20m", "6"),
        silent({'broker_storage_waiting{limit="pool"}': "3 3 0 3 3 0 3 3 0 3 3 0 3 3"}, "12m"),
        silent({'broker_storage_waiting{limit="share"}': "3x60"}, "20m"),
    ],
    "TokenBrokerFailover": [
        # Both replicas detect one failover.
        fires({"broker_storage_failovers_total": "_ _ _ 1x30"}, "5m", "1"),
        silent({"broker_storage_failovers_total": "1x60"}, "30m"),
    ],
    "TokenBrokerCommitsLost": [
        # Both replicas report the same commits.
        fires(
            {'broker_lost_commits_total{kind="revocation"}': "_ _ _ 2x30"},
            "5m", "2", "revocation", kind="revocation",
        ),
        silent({'broker_lost_commits_total{kind="revocation"}': "2x120"}, "100m"),
    ],
    "TokenBrokerUpkeepFails": [
        fires(
            {'broker_upkeep_failures_total{chore="purge grants"}': "_ _ _ 1x30"},
            "5m", "purge grants", "2", chore="purge grants",
        ),
        silent({'broker_upkeep_failures_total{chore="purge grants"}': "0x60"}, "30m"),
    ],
}  # fmt: skip

REVOCATIONS = {
    "TokenBrokerRevocationFailed": [
        fires({_REVOCATIONS % "failed": "_ _ _ 1x30"}, "5m", "2"),
        fires({_EVENTS % ("tokens-revoked", "failed"): "0x20 1x30"}, "25m", "2"),
        silent({_REVOCATIONS % "failed": "1x60"}, "30m"),
        silent({_EVENTS % ("none", "failed"): "0+1x60"}, "30m"),
        silent({_REVOCATIONS % "revoked": "0+1x60"}, "30m"),
    ],
    "TokenBrokerRevocationsNotDelivered": [
        fires({_REVOCATIONS % "retried": "0+1x120", _REVOCATIONS % "told": "9x120"}, "100m", "120"),
        silent({_REVOCATIONS % "retried": "0+1x120", _REVOCATIONS % "told": "0+1x120"}, "100m"),
        silent({_REVOCATIONS % "retried": "9x120", _REVOCATIONS % "told": "0x120"}, "100m"),
    ],
}

WEBHOOKS = {
    "TokenBrokerWebhooksFail": [
        fires({_WEBHOOKS % "retried": "0+1x90", _WEBHOOKS % "delivered": "5x90"}, "80m", "60"),
        silent({_WEBHOOKS % "retried": "0+1x90", _WEBHOOKS % "delivered": "0+1x90"}, "80m"),
        silent({_WEBHOOKS % "retried": "9x90", _WEBHOOKS % "delivered": "5x90"}, "80m"),
    ],
    "TokenBrokerWebhooksGivenUp": [
        fires(
            {_WEBHOOKS % "given_up": "_ _ _ 1x30"}, "5m", "2", "grant.revoked", type="grant.revoked"
        ),
        silent({_WEBHOOKS % "given_up": "1x120"}, "100m"),
    ],
}

AUDIT = {
    "TokenBrokerAuditRecordsDropped": [
        fires({"broker_audit_records_dropped_total": "_ _ _ 40x30"}, "5m", "80"),
        silent({"broker_audit_records_dropped_total": "40x60"}, "30m"),
    ],
    "TokenBrokerAuditFallsBehind": [
        fires({"broker_audit_records_waiting": "0x5 60000x20"}, "10m", "60000"),
        silent({"broker_audit_records_waiting": "60000 0 60000 0 60000 0 60000 0"}, "6m"),
    ],
    "TokenBrokerAuditFlooded": [
        fires({"broker_audit_records_left_out_total": "0+600x60"}, "30m", "20"),
        silent({"broker_audit_records_left_out_total": "0+60x60"}, "30m"),
    ],
    "TokenBrokerAuditTampered": [
        fires(
            {"broker_audit_seals_lost_total": "_ _ _ 1x30", "broker_audit_faults_total": "0x30"},
            "5m", "2",
        ),
        fires(
            {"broker_audit_seals_lost_total": "0x30", "broker_audit_faults_total": "_ _ _ 3x30"},
            "5m", "6",
        ),
        silent(
            {"broker_audit_seals_lost_total": "1x120", "broker_audit_faults_total": "0x120"}, "100m"
        ),
    ],
    "TokenBrokerAuditUnverified": [
        fires({"broker_audit_unverified_total": "_ _ _ 1x30"}, "5m", "2"),
        silent({"broker_audit_unverified_total": "0x60"}, "30m"),
    ],
}  # fmt: skip

_DRILL = 'broker_drill_last_success_timestamp_seconds{job="pushgateway",instance=""}'

DRILL = {
    # The time is 0 at the start; earlier times are negative.
    "TokenBrokerDrillOverdue": [
        Case(
            {f"a {_DRILL}": "-700000x20"},
            "10m",
            Firing(["8d 2h 36m 40s"], service={"namespace": "prod"}),
        ),
        silent({f"a {_DRILL}": "-600000x20"}, "10m"),
    ],
    "TokenBrokerDrillUnknown": [
        Case({}, "70m", Firing(service={})),
        silent({f"a {_DRILL}": "-600000x90"}, "70m"),
    ],
}

FILES: Sequence[tuple[str, int, Mapping[str, Sequence[Case]]]] = (
    ("availability", 1, AVAILABILITY),
    ("slo", 1, SLO),
    ("slo", 5, SLO_OF_DAYS),
    ("google", 1, GOOGLE),
    ("callers", 1, CALLERS),
    ("storage", 1, STORAGE),
    ("revocations", 1, REVOCATIONS),
    ("webhooks", 1, WEBHOOKS),
    ("audit", 1, AUDIT),
    ("optional/drill", 1, DRILL),
)
"""Each file of rules with its cases, and the minutes between two evaluations."""
