"""The chart with sample rules and a sample dashboard instead of the shipped ones."""

import json
import shutil
from pathlib import Path

import pytest

from tests.chart.rendering import CHART, require_helm

RULES = """
groups:
  - name: sample
    rules:
      - record: sample:ratio
        expr: sum(rate(a[5m])) / sum(rate(b[5m]))
      - alert: SampleDown
        expr: up{job="token-broker"} == 0
        for: 5m
        labels: {severity: critical}
        annotations:
          summary: "{{ $labels.instance }} is down: {{ $value }}"
          runbook_url: docs/how-to/runbooks.md#sampledown
      - alert: SampleSlow
        expr: sample:ratio > 0.1
        labels: {severity: warning}
"""


@pytest.fixture(scope="session")
def sampled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the chart with one file of rules and one dashboard."""
    require_helm()
    copy = tmp_path_factory.mktemp("chart") / "token-broker"
    shutil.copytree(CHART, copy)
    for folder in ("alerts", "dashboards"):
        shutil.rmtree(copy / "files" / folder, ignore_errors=True)
        (copy / "files" / folder).mkdir()
    (copy / "files/alerts/sample.yaml").write_text(RULES, encoding="utf-8")
    panels = {"title": "Sample", "panels": [{"legend": "{{caller}}"}]}
    (copy / "files/dashboards/sample.json").write_text(json.dumps(panels), encoding="utf-8")
    return copy
