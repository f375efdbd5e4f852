"""The alert rules: each fires when it should and not otherwise, and links its runbook."""

import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.alert_cases import FILES, Case, Firing, Series
from tests.deploy.rule_files import ALERTS, OPTIONAL, alerts, panels, rules, written
from tests.docs.documents import ROOT, blocks, rows, section, text_of
from tests.support.optional_parts import skip_without

MONITOR = "docs/how-to/monitor.md"
RUNBOOKS = "docs/how-to/runbooks.md"
BASE_URL = "https://git.example.com/token-broker/blob/main/"
_RUNBOOK_URL = "{{ $externalLabels.runbook_base_url }}docs/how-to/runbooks.md#"
_ALWAYS_THE_SAME = re.compile(r"\A(absent\(.*|.*\) == 0)\Z")
"""Expressions whose value carries no information: 0, or 1."""
_NAMES = sorted(alerts())


def each_alert() -> pytest.MarkDecorator:
    return pytest.mark.parametrize("name", _NAMES)


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run one of Prometheus's commands, if it is installed."""
    if shutil.which(str(command[0])) is None:
        skip_without(f"there is no {command[0]} (Debian: prometheus, prometheus-alertmanager)")
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


def test_prometheus_accepts_every_file() -> None:
    checked = run("promtool", "check", "rules", *ALERTS)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert checked.stdout.count("SUCCESS") == len(ALERTS) > 0


# ---- when they fire


@pytest.mark.parametrize(("file", "minutes", "cases"), FILES, ids=lambda value: str(value)[:12])
def test_each_alert_fires_when_it_should_and_not_otherwise(
    file: str, minutes: int, cases: Mapping[str, Sequence[Case]], tmp_path: Path
) -> None:
    document = {
        "rule_files": [str(ROOT / "deploy" / "alerts" / f"{file}.yaml")],
        "evaluation_interval": f"{minutes}m",
        # The rules of the longer windows use series that the others record.
        "group_eval_order": _groups_of(file),
        "tests": [_promtool_test(name, case) for name, these in cases.items() for case in these],
    }
    tested = run("promtool", "test", "rules", written(tmp_path / "tests.yaml", document))
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_every_alert_has_cases_that_fire_and_cases_that_do_not() -> None:
    tested = [name for _, _, cases in FILES for name in cases]
    assert sorted(tested) == _NAMES
    for _, _, cases in FILES:
        for name, these in cases.items():
            assert {case.firing is not None for case in these} == {True, False}, name


def test_every_file_is_tested() -> None:
    folder = ROOT / "deploy" / "alerts"
    shipped = {str(path.relative_to(folder).with_suffix("")) for path in ALERTS}
    assert shipped == {file for file, _, _ in FILES}


def test_a_cronjobs_last_success_feeds_the_drills_alerts(tmp_path: Path) -> None:
    """The guide's rule for Kubernetes, with the metrics of kube-state-metrics."""
    (shown,) = blocks(section(text_of(MONITOR), "## The backup drill"), "yaml")
    group = {"name": "cronjob", "rules": yaml.safe_load(shown)}
    labels = 'namespace="token-broker",cronjob="token-broker-drill",job="kube-state-metrics"'
    overdue = _expected("TokenBrokerDrillOverdue", Firing(["8d 2h 36m 40s"], service={}))
    overdue["exp_labels"]["namespace"] = "token-broker"
    document = {
        "rule_files": [
            str(written(tmp_path / "cronjob.yaml", {"groups": [group]})),
            str(ROOT / "deploy" / "alerts" / "optional" / "drill.yaml"),
        ],
        "group_eval_order": ["cronjob", "token-broker-drill"],
        "tests": [
            {
                "interval": "1m",
                "external_labels": {"runbook_base_url": BASE_URL},
                "input_series": [
                    {
                        "series": f"kube_cronjob_status_last_successful_time{{{labels}}}",
                        "values": "-700000x90",
                    }
                ],
                "alert_rule_test": [
                    {
                        "eval_time": "10m",
                        "alertname": "TokenBrokerDrillOverdue",
                        "exp_alerts": [overdue],
                    },
                    {
                        "eval_time": "80m",
                        "alertname": "TokenBrokerDrillUnknown",
                        "exp_alerts": [],
                    },
                ],
            }
        ],
    }
    tested = run("promtool", "test", "rules", written(tmp_path / "tests.yaml", document))
    assert tested.returncode == 0, tested.stdout + tested.stderr


def _groups_of(file: str) -> list[str]:
    document = yaml.safe_load(text_of(f"deploy/alerts/{file}.yaml"))
    return [group["name"] for group in document["groups"]]


def _promtool_test(name: str, case: Case) -> Mapping[str, Any]:
    firing = [_expected(name, case.firing)] if case.firing is not None else []
    return {
        "interval": "1m",
        "external_labels": {"runbook_base_url": BASE_URL},
        "input_series": _input(case.series),
        "alert_rule_test": [{"eval_time": case.at, "alertname": name, "exp_alerts": firing}],
    }


def _input(series: Series) -> list[dict[str, str]]:
    found = []
    for key, values in series.items():
        replica, _, name = key.rpartition(" ") if key.startswith(("a ", "b ")) else ("", "", key)
        for instance in replica or "ab":
            found.append({"series": _of_replica(name, instance), "values": values})
    return found


def _of_replica(series: str, instance: str) -> str:
    """Return the series with the labels that a scrape adds, unless it has its own."""
    name, _, own = series.partition("{")
    labels = {"job": "token-broker", "namespace": "prod", "instance": instance}
    labels |= dict(re.findall(r'(\w+)="([^"]*)"', own))
    return name + "{" + ",".join(f'{key}="{value}"' for key, value in labels.items()) + "}"


def _expected(name: str, firing: Firing) -> dict[str, dict[str, str]]:
    rule = alerts()[name]
    says = iter(firing.says)
    description = re.sub(r"\{\{.*?\}\}", lambda _: next(says), rule["annotations"]["description"])
    assert next(says, None) is None, (
        f"{name}: the case has more values than the description has templates"
    )
    annotations = {
        "summary": rule["annotations"]["summary"],
        "description": description,
        "runbook_url": f"{BASE_URL}{RUNBOOKS}#{name.lower()}",
    }
    return {
        "exp_labels": {**firing.service, **firing.labels, **rule["labels"]},
        "exp_annotations": annotations,
    }


# ---- what they say


@each_alert()
def test_each_alert_has_a_summary_a_severity_and_a_runbook(name: str) -> None:
    rule = alerts()[name]
    assert re.fullmatch("TokenBroker([A-Z][a-z]+)+", name)
    assert rule["labels"] == {"severity": rule["labels"]["severity"]}
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    assert rule["annotations"]["summary"].endswith(".")
    is_informative = not _ALWAYS_THE_SAME.match(rule["expr"].strip())
    assert ("$value" in rule["annotations"]["description"]) is is_informative
    assert rule["annotations"]["runbook_url"] == _RUNBOOK_URL + name.lower()


@each_alert()
def test_each_runbook_has_its_four_parts(name: str) -> None:
    runbook = section(text_of(RUNBOOKS), f"## {name}")
    parts = re.split(r"^\*\*(\w+)\.\*\* ", runbook, flags=re.MULTILINE)
    assert parts[1::2] == ["Meaning", "Impact", "Diagnosis", "Mitigation"]
    assert all(len(text.split()) > 3 for text in parts[2::2])


def test_every_runbook_has_an_alert() -> None:
    headings = re.findall(r"^## (.+)$", text_of(RUNBOOKS), re.MULTILINE)
    assert headings[:2] == ["Reach a replica", "Leave an alert out"]
    assert sorted(headings[2:]) == _NAMES


def test_the_list_of_alerts_equals_that_of_the_files() -> None:
    listed = [row for row in rows(section(text_of(MONITOR), "## Alerts")) if row[0] != "alert"]
    assert listed == [
        [
            f"[{name}](runbooks.md#{name.lower()})",
            rule["labels"]["severity"],
            rule["annotations"]["summary"],
        ]
        for name, rule in alerts().items()
    ]


def test_rules_for_optional_metrics_are_not_loaded_with_the_rest() -> None:
    """Without a drill its alert would never end."""
    everywhere = [path for path in ALERTS if path not in OPTIONAL]
    assert OPTIONAL
    assert not [path for path in everywhere if "_drill_" in path.read_text(encoding="utf-8")]


def test_each_alert_is_for_the_service_and_not_for_a_replica() -> None:
    assert not [rule for rule in rules() if re.search(r"by \([^)]*\binstance\b", rule["expr"])]


def test_the_objective_counts_every_answer_except_errors_of_the_sender() -> None:
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "broker").rglob("*.py")]
    found = [re.findall(r'Problem\(\s*50\d,\s*"(\w+)"', source) for source in sources]
    failures = {code for codes in found for code in codes}
    assert len(failures) > 3
    counted = {"ok", *failures}
    queries = [*(rule["expr"] for rule in rules()), *(query for query in _panel_queries())]
    asked = [set(values.split("|")) for query in queries for values in _outcomes_in(query)]
    assert asked.count(counted) >= 2
    assert asked.count(failures) >= 2
    assert all(one in (counted, failures, {"ok"}) for one in asked)


def _panel_queries() -> Iterator[str]:
    return (target["expr"] for panel in panels() for target in panel["targets"])


def _outcomes_in(query: str) -> list[str]:
    return re.findall(r'broker_token_requests_total\{[^}]*\boutcome=~?"([^"]*)"', query)


def test_no_name_is_used_twice() -> None:
    names = [str(rule.get("alert", rule.get("record"))) for rule in rules()]
    assert len(names) == len(set(names))


ROUTES = ROOT / "deploy" / "alertmanager.yaml"


def test_alertmanager_accepts_the_example_routes() -> None:
    checked = run("amtool", "check-config", ROUTES)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize(("severity", "receiver"), [("critical", "pager"), ("warning", "tickets")])
def test_a_severity_reaches_its_receiver(severity: str, receiver: str) -> None:
    labels = ("alertname=TokenBrokerDown", f"severity={severity}")
    route = run("amtool", "config", "routes", "test", f"--config.file={ROUTES}", *labels)
    assert route.stdout.split() == [receiver], route.stderr
