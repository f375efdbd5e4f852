"""Every value of the chart has an effect, and whatever is rendered passes the strict schemas."""

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


def test_every_value_is_tried() -> None:
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
def test_every_kubernetes_version_takes_all_that_can_be_on(version: str, sampled: Path) -> None:
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
def test_the_oldest_and_the_newest_take_each_way_to_set_it_up(version: str, values: Object) -> None:
    objects = render(merged(MINIMAL, values), kube=version)
    assert not [line for one in objects for line in complaints(one, version)]


def test_the_strict_schemas_do_refuse(sampled: Path) -> None:
    """So that the tests above mean something."""
    objects = render(merged(MINIMAL, ROUTE), apis=MONITORING, chart=sampled)
    for kind in ("Deployment", "ServiceMonitor", "HTTPRoute", "PrometheusRule"):
        (one,) = of_kind(objects, kind)
        one["spec"]["misspelt"] = 1
        assert any("misspelt" in line for line in complaints(one, NEWEST)), kind
    # A field that came with a later release than the cluster's.
    (deployment,) = of_kind(objects, "Deployment")
    del deployment["spec"]["misspelt"]
    assert any("sleep" in line for line in complaints(deployment, OLDEST))


def test_names_are_unique_and_short_enough() -> None:
    objects = render(merged(MINIMAL, EVERYTHING), release="r" * 53)
    names = [(one["kind"], one["metadata"]["name"]) for one in objects]
    assert len(names) == len(set(names))
    assert max(len(name) for kind, name in names if kind == "CronJob") <= 52
    assert max(len(name) for _, name in names) <= 63
    labels = [value for one in objects for value in one["metadata"].get("labels", {}).values()]
    assert max(map(len, labels)) <= 63


def test_rendering_twice_gives_the_same(sampled: Path) -> None:
    """As Argo CD needs it: no random values, no times."""
    values = merged(MINIMAL, EVERYTHING, TRIAL)
    options: dict[str, Any] = {"apis": MONITORING, "chart": sampled}
    once = render_texts(values, **options)
    rendering.forget()
    assert render_texts(values, **options) == once


def test_helm_lints_it_without_a_word() -> None:
    require_helm()
    report = import_module("helm_python").lint(CHART, MINIMAL, strict=True)
    worth_a_word = [m for m in report["messages"] if m["severity"] > 1]
    assert not report["errors"]
    assert not worth_a_word
