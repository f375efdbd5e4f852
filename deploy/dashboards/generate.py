"""Writes the Grafana dashboard, token-broker.json, from panels.py.

Run it from the project's root: `python -m deploy.dashboards.generate`.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from deploy.dashboards.panels import ROWS, Panel

FILE = Path(__file__).with_name("token-broker.json")

_SOURCE = {"type": "prometheus", "uid": "$datasource"}
_HEIGHTS = {"stat": 4, "state-timeline": 5, "bargauge": 7, "timeseries": 7}
_WIDTH = 24
_UP_OR_DOWN = [
    {
        "type": "value",
        "options": {
            "0": {"text": "down", "color": "red", "index": 0},
            "1": {"text": "up", "color": "green", "index": 1},
        },
    }
]


def dashboard() -> Mapping[str, Any]:
    """Return the dashboard as Grafana reads it."""
    return {
        "uid": "token-broker",
        "id": None,
        "title": "Token broker",
        "description": "Tokens for internal services: what callers get, and what it depends on.",
        "tags": ["token-broker"],
        "schemaVersion": 38,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "timezone": "",
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": list(_variables())},
        "annotations": {"list": [_starts()]},
        "links": [],
        "panels": list(_panels()),
    }


def _variables() -> Iterator[Mapping[str, Any]]:
    yield {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
        "current": {},
        "hide": 0,
        "refresh": 1,
    }
    build = "broker_build_info"
    in_namespace = f'{build}{{namespace=~"$namespace"}}'
    in_job = f'{build}{{namespace=~"$namespace",job=~"$job"}}'
    requests = 'broker_token_requests_total{namespace=~"$namespace",job=~"$job"}'
    yield _variable("namespace", "Namespace", f"label_values({build}, namespace)")
    yield _variable("job", "Job", f"label_values({in_namespace}, job)")
    yield _variable("instance", "Replica", f"label_values({in_job}, instance)")
    yield _variable("caller", "Caller", f"label_values({requests}, caller)")


def _variable(name: str, label: str, query: str) -> Mapping[str, Any]:
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": _SOURCE,
        "query": {"query": query, "refId": name},
        "definition": query,
        "multi": True,
        "includeAll": True,
        # `.*` also selects series without the label.
        "allValue": ".*",
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        "refresh": 2,
        "sort": 1,
        "hide": 0,
    }


def _starts() -> Mapping[str, Any]:
    """Return an annotation at each start of a replica."""
    chosen = '{namespace=~"$namespace",job=~"$job",instance=~"$instance"}'
    return {
        "name": "Starts of replicas",
        "datasource": _SOURCE,
        "enable": True,
        "iconColor": "blue",
        "expr": f"process_start_time_seconds{chosen} * 1000",
        "useValueForTime": True,
        "titleFormat": "{{instance}} started",
    }


def _panels() -> Iterator[Mapping[str, Any]]:
    number, top = 1, 0
    for title, panels in ROWS:
        yield {
            "id": number,
            "type": "row",
            "title": title,
            "collapsed": False,
            "gridPos": {"x": 0, "y": top, "w": _WIDTH, "h": 1},
            "panels": [],
        }
        number, top = number + 1, top + 1
        for line in _lines(panels):
            height = max(_HEIGHTS[panel.kind] for panel in line)
            left = 0
            for panel in line:
                place = {"x": left, "y": top, "w": panel.width, "h": height}
                yield _panel(number, panel, place)
                number, left = number + 1, left + panel.width
            top += height


def _lines(panels: Sequence[Panel]) -> Iterator[Sequence[Panel]]:
    """Split the panels of a row into lines."""
    line: list[Panel] = []
    for panel in panels:
        if sum(each.width for each in line) + panel.width > _WIDTH:
            yield line
            line = []
        line.append(panel)
    yield line


def _panel(number: int, panel: Panel, place: Mapping[str, int]) -> Mapping[str, Any]:
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": _SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": _field(panel), "overrides": []},
        "options": _options(panel),
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": _SOURCE,
                "editorMode": "code",
                "expr": query,
                "legendFormat": legend,
                "range": not _is_now(panel),
                "instant": _is_now(panel),
            }
            for index, (legend, query) in enumerate(panel.queries.items())
        ],
    }


def _is_now(panel: Panel) -> bool:
    """True if the panel shows only the newest value."""
    return panel.kind in ("stat", "bargauge")


def _field(panel: Panel) -> Mapping[str, Any]:
    field: dict[str, Any] = {
        "unit": panel.unit,
        "color": {"mode": "palette-classic"},
        "thresholds": {"mode": "absolute", "steps": [{"color": "green", "value": None}]},
        "mappings": [],
    }
    if panel.kind == "timeseries":
        # A remaining share may be negative, a count may not.
        field["min"] = 0
        field["custom"] = {
            "drawStyle": "line",
            "lineWidth": 1,
            "fillOpacity": 20 if panel.is_stacked else 0,
            "showPoints": "never",
            "stacking": {"mode": "normal" if panel.is_stacked else "none", "group": "A"},
        }
    if panel.kind == "state-timeline":
        field["mappings"] = _UP_OR_DOWN
        field["color"] = {"mode": "thresholds"}
        field["custom"] = {"fillOpacity": 70, "lineWidth": 0}
    return field


def _options(panel: Panel) -> Mapping[str, Any]:
    newest: Sequence[str] = ("lastNotNull",)
    reduced = {"calcs": list(newest), "fields": "", "values": False}
    if panel.kind == "stat":
        return {
            "reduceOptions": reduced,
            "colorMode": "none",
            "graphMode": "none",
            "textMode": "value_and_name" if "{{" in next(iter(panel.queries)) else "value",
        }
    if panel.kind == "bargauge":
        return {"reduceOptions": reduced, "orientation": "horizontal", "displayMode": "basic"}
    if panel.kind == "state-timeline":
        return {"showValue": "never", "mergeValues": True, "rowHeight": 0.8}
    return {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }


def text() -> str:
    """Return the file's content."""
    return json.dumps(dashboard(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
