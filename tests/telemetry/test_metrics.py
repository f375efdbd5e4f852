"""The metrics that dashboards and alerts rely on."""

from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from broker import __version__
from broker.telemetry.metrics import Metrics

CONTRACT: dict[str, set[str]] = {
    "broker_consents_total": {"outcome"},
    "broker_token_requests_total": {"caller", "outcome"},
    "broker_token_refreshes_total": {"outcome"},
    "broker_google_requests_total": {"endpoint", "outcome"},
    "broker_google_request_duration_seconds": {"endpoint"},
    "broker_http_request_duration_seconds": {"listener", "route", "method", "status"},
    "broker_revocations_total": {"origin", "outcome"},
    "broker_grants": {"status"},
    "broker_secret_source_up": {"source"},
    "broker_client_secret_version": set(),
}
OURS = {
    "broker_audit_faults_total": set[str](),
    "broker_audit_head": set[str](),
    "broker_audit_seals_lost_total": set[str](),
    "broker_audit_seals_total": set[str](),
    "broker_audit_unverified_total": set[str](),
    "broker_audit_records_waiting": set(),
    "broker_build_info": {"version"},
    "broker_callers_file_up": set[str](),
    "broker_event_loop_lag_seconds": set[str](),
    "broker_issuer_up": {"issuer"},
    "broker_issuer_requests_total": {"issuer", "outcome"},
    "broker_jwts_refused_total": {"use", "reason"},
    "broker_security_events_total": {"event", "outcome"},
    "broker_audit_records_dropped_total": set[str](),
    "broker_audit_records_left_out_total": set[str](),
    "broker_lost_commits_total": {"kind"},
    "broker_storage_connections": {"state"},
    "broker_storage_connections_max": set[str](),
    "broker_storage_failovers_total": set[str](),
    "broker_storage_up": set[str](),
    "broker_storage_waiting": {"limit"},
    "broker_token_refreshes_in_flight": set[str](),
    "broker_rate_limited_total": {"caller", "limit"},
    "broker_upkeep_failures_total": {"chore"},
    "broker_webhooks_total": {"type", "outcome"},
    "broker_webhooks_waiting": set(),
}


def _labels(metrics: Metrics) -> dict[str, set[str]]:
    """Return every metric's name as it is scraped, with its labels."""
    collectors: list[Any] = [own for own in vars(metrics).values() if own is not metrics.registry]
    found: dict[str, set[str]] = {}
    for collector in collectors:
        (family,) = collector.describe()
        names = getattr(collector, "_labelnames", None) or getattr(collector, "_label_names", ())
        found[family.name + ("_total" if family.type == "counter" else "")] = set(names or ())
    return found


def test_names_and_labels_match_the_contract() -> None:
    assert _labels(Metrics()) == CONTRACT | OURS


@pytest.mark.parametrize("label", ["user", "user_id", "email", "account", "sub", "path"])
def test_no_label_identifies_a_user(label: str) -> None:
    assert all(label not in labels for labels in _labels(Metrics()).values())


def test_each_broker_has_its_own_registry() -> None:
    one, other = Metrics(), Metrics()
    one.consents.labels("connected").inc()
    assert isinstance(one.registry, CollectorRegistry)
    assert (
        other.registry.get_sample_value("broker_consents_total", {"outcome": "connected"}) is None
    )


def test_every_metric_has_a_help_text() -> None:
    own = [one for one in Metrics().registry.collect() if one.name.startswith("broker_")]
    assert own
    assert all(family.documentation.endswith(".") for family in own)


def test_the_process_shows_its_resources_and_its_release() -> None:
    registry = Metrics().registry
    assert registry.get_sample_value("broker_build_info", {"version": __version__}) == 1
    names = {family.name for family in registry.collect()}
    assert {
        "process_cpu_seconds",
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_max_fds",
        "process_start_time_seconds",
        "python_gc_collections",
    } <= names


def test_times_of_creation_are_left_out() -> None:
    metrics = Metrics()
    metrics.consents.labels("connected").inc()
    samples = [sample.name for family in metrics.registry.collect() for sample in family.samples]
    assert not [name for name in samples if name.endswith("_created")]
