"""The lockless counters and histograms are exposed like those of prometheus_client."""

import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from broker.telemetry.lockless_metrics import CounterFamily, HistogramFamily
from broker.telemetry.metrics import Metrics

_BOUNDS = (0.001, 0.5, 2)


@pytest.fixture(autouse=True)
def _no_times_of_creation() -> None:
    """The broker's metrics leave them out."""
    Metrics()


def test_counters_are_exposed_like_those_of_prometheus_client() -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    own = CounterFamily("asked_total", "How often.", ["caller", "outcome"], registry=ours)
    model = Counter("asked_total", "How often.", ["caller", "outcome"], registry=theirs)
    for labels in (("a", "ok"), ("a", "ok"), ("b", 'a "quoted"\nthing')):
        own.labels(*labels).inc()
        model.labels(*labels).inc()
    assert generate_latest(ours) == generate_latest(theirs)


def test_histograms_are_exposed_like_those_of_prometheus_client() -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    own = HistogramFamily("took_seconds", "How long.", ["route"], buckets=_BOUNDS, registry=ours)
    model = Histogram("took_seconds", "How long.", ["route"], buckets=_BOUNDS, registry=theirs)
    # On a bound, between two, below the first and above the last.
    for seconds in (0.0, 0.001, 0.25, 0.5, 1.75, 64.0):
        own.labels("/x").observe(seconds)
        model.labels("/x").observe(seconds)
    assert generate_latest(ours) == generate_latest(theirs)


def test_the_broker_exposes_them_under_the_names_of_the_contract() -> None:
    metrics = Metrics()
    metrics.token_requests.labels("calendar-sync", "ok").inc()
    metrics.http_request_duration.labels("internal", "/r", "GET", "200").observe(0.002)
    shown = generate_latest(metrics.registry).decode()
    assert 'broker_token_requests_total{caller="calendar-sync",outcome="ok"} 1.0' in shown
    assert (
        "broker_http_request_duration_seconds_count"
        '{listener="internal",method="GET",route="/r",status="200"} 1.0'
    ) in shown
