"""ServiceMonitor, alerts and dashboard: rendered when the cluster knows their kinds, as in the
files.
"""

import json
from pathlib import Path

import pytest

from tests.chart.rendering import (
    MINIMAL,
    MONITORING,
    Object,
    merged,
    of_kind,
    render,
    render_texts,
    the,
)
from tests.chart.switches import at

ALL = [
    ("ServiceMonitor", "serviceMonitor"),
    ("PrometheusRule", "prometheusRule"),
    ("ConfigMap", "dashboard"),
]


def _found(objects: list[Object], kind: str) -> list[Object]:
    suffix = "-dashboard" if kind == "ConfigMap" else ""
    return of_kind(objects, kind, suffix)


@pytest.mark.parametrize(("kind", "name"), ALL)
@pytest.mark.parametrize(
    ("mode", "apis", "is_there"),
    [
        ("auto", MONITORING, True),
        ("auto", (), False),
        ("always", (), True),
        ("always", MONITORING, True),
        ("never", MONITORING, False),
    ],
)
def test_each_mode(
    kind: str, name: str, mode: str, apis: tuple[str, ...], is_there: bool, sampled: Path
) -> None:
    values = merged(MINIMAL, at(f"monitoring.{name}.mode", mode))
    assert bool(_found(render(values, apis=apis, chart=sampled), kind)) is is_there


def test_prometheus_scrapes_each_replica_by_the_ops_service(sampled: Path) -> None:
    objects = render(MINIMAL, apis=MONITORING, chart=sampled)
    monitor = the(objects, "ServiceMonitor")["spec"]
    service = the(objects, "Service", "-ops")
    selected = [
        one["metadata"]["name"]
        for one in of_kind(objects, "Service")
        if monitor["selector"]["matchLabels"].items() <= one["metadata"]["labels"].items()
    ]
    assert selected == [service["metadata"]["name"]]
    assert service["spec"]["clusterIP"] == "None"
    assert monitor["endpoints"][0]["port"] == service["spec"]["ports"][0]["name"]
    assert service["metadata"]["labels"][monitor["jobLabel"]] == "token-broker"


def _rules(values: Object, chart: Path) -> list[Object]:
    spec = the(render(merged(MINIMAL, values), apis=MONITORING, chart=chart), "PrometheusRule")[
        "spec"
    ]
    return [rule for group in spec["groups"] for rule in group["rules"]]


def test_prometheus_templates_are_unchanged(sampled: Path) -> None:
    (down,) = (rule for rule in _rules({}, sampled) if rule.get("alert") == "SampleDown")
    assert down["annotations"]["summary"] == "{{ $labels.instance }} is down: {{ $value }}"
    text = render_texts(MINIMAL, apis=MONITORING, chart=sampled)["dashboard.yaml"]
    assert "{{caller}}" in text


def test_alerts_can_be_left_out_and_labelled(sampled: Path) -> None:
    values = {
        "disabledAlerts": ["SampleDown"],
        "alertLabels": {"team": "identity", "severity": "x"},
    }
    rules = _rules(at("monitoring.prometheusRule", values), sampled)
    assert [rule.get("alert") or rule["record"] for rule in rules] == ["sample:ratio", "SampleSlow"]
    assert rules[1]["labels"] == {"team": "identity", "severity": "x"}
    assert "labels" not in rules[0]


def test_runbooks_get_the_address_of_the_repository(sampled: Path) -> None:
    values = at("monitoring.prometheusRule.runbookBaseUrl", "https://git.example.com/broker/")
    (down,) = (rule for rule in _rules(values, sampled) if rule.get("alert") == "SampleDown")
    runbook = "https://git.example.com/broker/docs/how-to/runbooks.md#sampledown"
    assert down["annotations"]["runbook_url"] == runbook


def test_the_dashboard_is_found_by_grafana_and_unchanged(sampled: Path) -> None:
    objects = render(MINIMAL, apis=MONITORING, chart=sampled)
    dashboard = the(objects, "ConfigMap", "-dashboard")
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"
    shipped = json.loads((sampled / "files/dashboards/sample.json").read_text("utf-8"))
    assert json.loads(dashboard["data"]["sample.json"]) == shipped


def test_without_rules_there_is_no_object(sampled: Path, tmp_path: Path) -> None:
    import shutil

    bare = tmp_path / "chart"
    shutil.copytree(sampled, bare)
    shutil.rmtree(bare / "files" / "alerts")
    shutil.rmtree(bare / "files" / "dashboards")
    objects = render(MINIMAL, apis=MONITORING, chart=bare)
    assert not of_kind(objects, "PrometheusRule")
    assert not of_kind(objects, "ConfigMap", "-dashboard")
