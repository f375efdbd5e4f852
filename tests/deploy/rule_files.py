"""The alert rules and the dashboard, as the tests read them."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.docs.documents import ROOT

OPTIONAL = sorted((ROOT / "deploy" / "alerts" / "optional").glob("*.yaml"))
"""Rules for a metric that not every installation has."""

ALERTS = [*sorted((ROOT / "deploy" / "alerts").glob("*.yaml")), *OPTIONAL]
DASHBOARD = ROOT / "deploy" / "dashboards" / "token-broker.json"

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_NAME = re.compile(r"\b(?:broker|process|python)_[a-z_]+|\bup\b")
_SUFFIX = re.compile(r"_(?:bucket|count|sum)$")
_SELECTOR = re.compile(
    r'(?P<name>\b(?:broker:|broker_|process_|python_)[\w:]+)\{(?P<matchers>(?:[^}"]|"[^"]*")*)\}'
)
_MATCHER = re.compile(r'(?P<label>\w+)(?P<operator>=~|!~|!=|=)"(?P<value>[^"]*)"')


@dataclass(frozen=True)
class Selected:
    """A query's condition on one label of one metric."""

    metric: str
    label: str
    values: tuple[str, ...]
    """The values that are named; none if it is excluded or a pattern."""


@cache
def groups() -> Sequence[Mapping[str, Any]]:
    """Return every group of every file."""
    files = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in ALERTS]
    return [group for file in files for group in file["groups"]]


@cache
def rules() -> Sequence[Mapping[str, Any]]:
    """Return every rule of every file."""
    return [rule for group in groups() for rule in group["rules"]]


def slowly_recorded() -> Sequence[Mapping[str, Any]]:
    """Return the recording rules of groups with an interval of minutes."""
    slow = [rule for group in groups() if "interval" in group for rule in group["rules"]]
    return [rule for rule in slow if "record" in rule]


def alerts() -> dict[str, Mapping[str, Any]]:
    """Return every alert, by its name."""
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def dashboard() -> Any:
    return json.loads(DASHBOARD.read_text(encoding="utf-8"))


def panels() -> Iterator[Mapping[str, Any]]:
    """Return every panel that shows data."""
    for panel in dashboard()["panels"]:
        yield from (one for one in (panel, *panel.get("panels", ())) if one["type"] != "row")


def queries() -> dict[str, str]:
    """Return every expression of a rule or a panel, by its name."""
    found = {str(rule.get("alert", rule.get("record"))): str(rule["expr"]) for rule in rules()}
    for panel in panels():
        for target in panel["targets"]:
            found[f"{panel['title']} {target['refId']}"] = str(target["expr"])
    return found


def metrics_in(query: str) -> set[str]:
    """Return the names of scraped metrics in a query; a histogram's without the suffix of its
    series.
    """
    bare = _STRING.sub('""', query)
    return {_SUFFIX.sub("", name) for name in _NAME.findall(bare)}


def selected_in(query: str) -> Iterator[Selected]:
    """Return a query's conditions on labels; for a recorded series, those of its metrics."""
    recorded = {rule["record"]: metrics_in(rule["expr"]) for rule in rules() if "record" in rule}
    for selector in _SELECTOR.finditer(query):
        metrics = recorded.get(selector["name"], {_SUFFIX.sub("", selector["name"])})
        for matcher in _MATCHER.finditer(selector["matchers"]):
            named = matcher["operator"] in ("=", "=~") and re.fullmatch(
                r"[\w.|/{}-]+", matcher["value"]
            )
            values = tuple(matcher["value"].split("|")) if named else ()
            for metric in metrics:
                yield Selected(metric, matcher["label"], values)


def written(path: Path, document: Any) -> Path:
    """Write a YAML file for one of Prometheus's tools."""
    path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    return path
