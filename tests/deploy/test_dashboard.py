"""The dashboard's file: the rules of Grafana's own linter, and those that keep it maintainable."""

import re
from collections.abc import Mapping
from itertools import combinations
from typing import Any

import pytest

from deploy.dashboards.generate import FILE, text
from tests.deploy.rule_files import dashboard, panels

SUBJECTS = {
    "token requests by caller": "Token requests by caller",
    "token requests by listener": "Requests by listener",
    "refresh health": "Refreshes by outcome",
    "Google's latency": "Google's latency",
    "Google's errors": "Google's errors",
    "grants by status": "Grants by status",
    "the consent funnel": "Consent funnel",
    "the secret source": "OAuth client's source",
    "the callers file": "Callers file",
    "issuers": "Issuers",
    "storage": "PostgreSQL",
    "connections": "Connections to PostgreSQL",
    "audit": "Audit records waiting",
    "webhooks": "Webhooks by outcome",
    "security": "Refusals",
    "the process": "CPU",
    "the event loop": "Event-loop lag",
    "the release": "Releases",
}
"""The subjects of the dashboard, and the panel for each."""

UNITS = {"short", "percentunit", "reqps", "ops", "s", "bytes", "bool_yes_no"}
"""Grafana's units that are used here; Grafana takes an unknown one for a suffix."""

_PANELS = list(panels())
_TITLES = [panel["title"] for panel in _PANELS]


def each_panel() -> pytest.MarkDecorator:
    return pytest.mark.parametrize("panel", _PANELS, ids=_TITLES)


def test_the_file_equals_the_generators_output() -> None:
    assert FILE.read_text(encoding="utf-8") == text(), "run python -m deploy.dashboards.generate"


def test_it_can_be_provisioned_repeatedly() -> None:
    board = dashboard()
    assert (board["uid"], board["id"]) == ("token-broker", None)
    assert "__inputs" not in board
    assert board["schemaVersion"] == 38


def test_the_data_source_is_a_variable_everywhere() -> None:
    variables = dashboard()["templating"]["list"]
    assert [one["name"] for one in variables][:1] == ["datasource"]
    assert variables[0]["type"] == "datasource"
    uids = re.findall(
        r'"datasource": \{\s*"type": "prometheus",\s*"uid": "(.*?)"', FILE.read_text()
    )
    assert len(uids) > 2 * len(_PANELS)
    assert set(uids) == {"$datasource"}


def test_namespace_job_instance_and_caller_can_be_chosen() -> None:
    chosen = {one["name"]: one for one in dashboard()["templating"]["list"][1:]}
    assert set(chosen) == {"namespace", "job", "instance", "caller"}
    assert all(one["multi"] and one["includeAll"] for one in chosen.values())
    assert all(one["allValue"] == ".*" for one in chosen.values())


@pytest.mark.parametrize("title", SUBJECTS.values(), ids=SUBJECTS)
def test_it_shows(title: str) -> None:
    assert title in _TITLES


def test_titles_and_numbers_are_used_once() -> None:
    assert len(_TITLES) == len(set(_TITLES))
    numbers = [panel["id"] for panel in dashboard()["panels"]]
    assert len(numbers) == len(set(numbers))


@each_panel()
def test_each_panel_has_a_unit_a_description_and_a_legend(panel: Mapping[str, Any]) -> None:
    assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
    assert panel["description"].endswith(".")
    assert all(target["legendFormat"] for target in panel["targets"])


@each_panel()
def test_rates_use_the_scrape_interval(panel: Mapping[str, Any]) -> None:
    for target in panel["targets"]:
        windows = re.findall(r"\[(.*?)\]", target["expr"])
        functions = re.findall(r"\b(i?rate|increase|i?delta|\w+_over_time)\(", target["expr"])
        assert len(windows) == len(functions)
        for function, window in zip(functions, windows, strict=True):
            assert window == "$__rate_interval" or function in ("increase", "delta")


@each_panel()
def test_the_description_or_legend_names_a_fixed_range(panel: Mapping[str, Any]) -> None:
    texts = f"{panel['description']} {' '.join(t['legendFormat'] for t in panel['targets'])}"
    for target in panel["targets"]:
        for window in set(re.findall(r"\[(.*?)\]", target["expr"])) - {"$__rate_interval"}:
            assert {"1h": "hour", "$__range": "the time shown"}[window] in texts


@each_panel()
def test_each_query_selects_the_chosen_replicas(panel: Mapping[str, Any]) -> None:
    for target in panel["targets"]:
        selectors = re.findall(r'\{((?:[^}"]|"[^"]*")*)\}', target["expr"])
        assert selectors
        assert all('job=~"$job"' in one and 'namespace=~"$namespace"' in one for one in selectors)


def test_no_panels_overlap() -> None:
    places = [panel["gridPos"] for panel in dashboard()["panels"]]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    overlapping = [
        (one, other)
        for one, other in combinations(places, 2)
        if one["x"] < other["x"] + other["w"]
        and other["x"] < one["x"] + one["w"]
        and one["y"] < other["y"] + other["h"]
        and other["y"] < one["y"] + one["h"]
    ]
    assert not overlapping
