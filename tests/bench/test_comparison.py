"""Comparisons of the benchmark, their reports, and the bare app."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.answers import Answer, ask_once
from bench.comparison import Comparison, compare
from bench.load import Round
from bench.report import as_json, as_text
from bench.servers import ServerProcess
from devstack.processes import free_port

_ANSWER = Answer(200, ((b"content-length", b"2"), (b"x-request-id", b"one")), b"{}")


def _round(answers: int, *, failures: int = 0) -> Round:
    return Round(
        seconds=1.0,
        answers=answers,
        failures=failures,
        p50=0.001,
        p99=0.002,
        cpu_seconds=1.0,
        own_cpu_seconds=0.5,
    )


def _comparison(broker: list[int], bare: list[int], stock: list[int]) -> Comparison:
    named = {"broker": broker, "bare": bare, "stock": stock}
    return Comparison({name: tuple(map(_round, each)) for name, each in named.items()})


def test_a_ratio_is_the_median_of_neighbouring_runs() -> None:
    comparison = _comparison([100, 90, 10], [100, 100, 20], [50, 50, 50])
    assert comparison.ratios("bare") == [1.0, 0.9, 0.5]
    assert comparison.ratio("bare") == 0.9


def test_the_broker_is_compared_with_the_fastest_other_server() -> None:
    comparison = _comparison([90], [50], [100])
    assert comparison.others == ["bare", "stock"]
    assert comparison.lowest == 0.9


@pytest.mark.parametrize(("at_least", "verdict"), [(0.85, "passed"), (0.95, "too low")])
def test_the_report_has_each_ratio_and_the_verdict(at_least: float, verdict: str) -> None:
    report = as_text(_comparison([90], [50], [100]), None, at_least=at_least)
    assert "broker ÷ bare: 1.800" in report
    assert "broker ÷ stock: 0.900" in report
    assert f"ratio 0.900; at least {at_least:.2f}: {verdict}" in report


def test_the_json_report_has_the_same_figures() -> None:
    report = json.loads(as_json(_comparison([90], [50], [100]), None, at_least=0.85))
    assert report["ratio"] == 0.9
    assert report["broker_to"]["bare"]["ratio"] == 1.8
    assert report["medians"]["stock"]["rate"] == 100


def test_a_failure_of_any_server_is_reported() -> None:
    comparison = Comparison({"broker": (_round(1),), "bare": (_round(1, failures=2),)})
    assert "2 requests failed" in as_text(comparison, None, at_least=0)


def test_the_order_alternates() -> None:
    turns: list[str] = []

    def of(name: str) -> Callable[[], Round]:
        def measure() -> Round:
            turns.append(name)
            return _round(1)

        return measure

    compare({name: of(name) for name in ("broker", "a", "b")}, rounds=2, progress=lambda _: None)
    assert turns == ["broker", "a", "b", "b", "a", "broker"]


@pytest.mark.process
@pytest.mark.parametrize("options", [(), ("--stock",)])
def test_the_bare_app_replays_the_recorded_response(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    path, port = tmp_path / "answer.json", free_port()
    _ANSWER.save(path)
    with ServerProcess(
        "the bare app",
        ("-m", "bench.bare", str(port), str(path), *options),
        environment={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        port=port,
        log_path=tmp_path / "log",
    ):
        assert ask_once(port, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n") == _ANSWER
