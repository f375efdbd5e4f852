"""Every value of the chart has an effect, and every rendered object passes the strict schemas."""

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from checks.chart.readme import described_values
from tests.chart import rendering
from tests.chart.rendering import (
    CHART,
    MINIMAL,
    MONITORING,
    NEWEST,
    OLDEST,
    VERSIONS,
    Object,
    complaints,
    merged,
    of_kind,
    render,
    render_texts,
    require_helm,
)
from tests.chart.switches import (
    EVERYTHING,
    ROUTE,
    SWITCHES,
    TRIAL,
    TRIED_ELSEWHERE,
    VAULT,
    at,
)


def test_every_value_is_tested() -> None:
    described = {
        value.path for value in described_values((CHART / "values.yaml").read_text("utf-8"))
    }
    assert described == SWITCHES.keys() | TRIED_ELSEWHERE


@pytest.mark.parametrize("path", SWITCHES)
def test_a_value_has_an_effect_and_the_result_is_valid(path: str, sampled: Path) -> None:
    context, other = SWITCHES[path]
    values = merged(MINIMAL, context)
    before = render(values, apis=MONITORING, chart=sampled)
    after = render(merged(values, at(path, other)), apis=MONITORING, chart=sampled)
    assert after != before
    changed = [one for one in after if one not in before]
    assert not [line for one in changed for line in complaints(one, NEWEST)]


@pytest.mark.parametrize("version", VERSIONS)
def test_every_kubernetes_version_accepts_all_options_together(version: str, sampled: Path) -> None:
    values = merged(MINIMAL, EVERYTHING)
    objects = render(values, kube=version, apis=MONITORING, chart=sampled)
    assert {one["kind"] for one in objects} >= {"CronJob", "HorizontalPodAutoscaler", "HTTPRoute"}
    assert not [line for one in objects for line in complaints(one, version)]


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize(
    "values",
    [{}, TRIAL, VAULT, at("migrations.mode", "none"), at("migrations.mode", "initContainer")],
    ids=["minimal", "trial", "vault", "no migrations", "init container"],
)
def test_the_oldest_and_the_newest_version_accept_each_setup(version: str, values: Object) -> None:
    objects = render(merged(MINIMAL, values), kube=version)
    assert not [line for one in objects for line in complaints(one, version)]


@pytest.mark.parametrize("kind", ["Deployment", "ServiceMonitor", "HTTPRoute", "PrometheusRule"])
def test_the_strict_schemas_reject_unknown_fields(kind: str, sampled: Path) -> None:
    """Proves the schemas that the tests above use."""
    objects = render(merged(MINIMAL, ROUTE), apis=MONITORING, chart=sampled)
    (one,) = of_kind(objects, kind)
    one["spec"]["misspelt"] = 1
    assert any("misspelt" in line for line in complaints(one, NEWEST))


def test_the_strict_schemas_reject_a_field_of_a_later_release(sampled: Path) -> None:
    objects = render(merged(MINIMAL, ROUTE), apis=MONITORING, chart=sampled)
    (deployment,) = of_kind(objects, "Deployment")
    assert any("sleep" in line for line in complaints(deployment, OLDEST))


def test_names_are_unique_and_short_enough() -> None:
    objects = render(merged(MINIMAL, EVERYTHING), release="r" * 53)
    names = [(one["kind"], one["metadata"]["name"]) for one in objects]
    assert len(names) == len(set(names))
    assert max(len(name) for kind, name in names if kind == "CronJob") <= 52
    assert max(len(name) for _, name in names) <= 63
    labels = [value for one in objects for value in one["metadata"].get("labels", {}).values()]
    assert max(map(len, labels)) <= 63


def test_rendering_is_deterministic(sampled: Path) -> None:
    """Argo CD requires it: no random values, no times."""
    values = merged(MINIMAL, EVERYTHING, TRIAL)
    options: dict[str, Any] = {"apis": MONITORING, "chart": sampled}
    once = render_texts(values, **options)
    rendering.forget()
    assert render_texts(values, **options) == once


def test_helm_lint_reports_nothing() -> None:
    require_helm()
    report = import_module("helm_python").lint(CHART, MINIMAL, strict=True)
    worth_a_word = [m for m in report["messages"] if m["severity"] > 1]
    assert not report["errors"]
    assert not worth_a_word
