"""The table's arithmetic, and a short run of every row."""

import json
import subprocess
import sys

import pytest

from bench.__main__ import ROWS
from bench.alternation import alternate, failures_in, quantile, rate_ratio
from bench.load import Round
from bench.table import Bound, Figure, Sense, Skipped, as_json, as_text, has_passed


def measured(answers: int, *, failures: int = 0) -> Round:
    return Round(1.0, answers, failures, 0.001, 0.002, 1.0, 0.5)


def figure(value: float, bound: Bound, *, failures: int = 0) -> Figure:
    return Figure("row", "what", value, bound, failures=failures)


@pytest.mark.parametrize(
    ("sense", "kept", "missed"),
    [
        (Sense.AT_LEAST, (2.0, 2.1), (1.9,)),
        (Sense.AT_MOST, (2.0, 1.9), (2.1,)),
        (Sense.EXACTLY, (2.0,), (1.0, 3.0)),
    ],
)
def test_a_bound_is_met_on_its_own_side(
    sense: Sense, kept: tuple[float, ...], missed: tuple[float, ...]
) -> None:
    bound = Bound(sense, 2)
    assert all(bound.is_kept_by(value) for value in kept)
    assert not any(bound.is_kept_by(value) for value in missed)


def test_a_figure_with_failed_requests_meets_no_bound() -> None:
    assert not figure(5, Bound(Sense.AT_LEAST, 1), failures=1).is_kept


def test_a_run_passes_only_if_every_row_was_measured_and_met() -> None:
    good, bad = figure(1, Bound(Sense.AT_MOST, 1)), figure(2, Bound(Sense.AT_MOST, 1))
    assert has_passed([good], [])
    assert not has_passed([good, bad], [])
    assert not has_passed([good], [Skipped("other", "it lacks")])


def test_the_text_names_missed_bounds_and_skipped_rows() -> None:
    text = as_text(
        [figure(2, Bound(Sense.AT_MOST, 1, "s"))], [Skipped("batch", "no route")], pinned=False
    )
    assert "MISSED row: what" in text
    assert "2 s, wanted: at most 1 s" in text
    assert "0 of 1 bounds met" in text
    assert "NOT RUN batch: no route" in text
    assert "not pinned" in text


def test_the_json_has_a_verdict_per_figure() -> None:
    document = json.loads(as_json([figure(1, Bound(Sense.EXACTLY, 1))], [], pinned=True))
    assert document["kept"] is True
    assert document["figures"][0]["kept"] is True


def test_the_first_one_alternates() -> None:
    order: list[str] = []

    def take(name: str) -> Round:
        order.append(name)
        return measured(1)

    alternate(lambda: take("a"), lambda: take("b"), 2)
    assert order == ["a", "b", "b", "a"]


def test_the_rate_ratio_is_the_median_of_the_pairs() -> None:
    pairs = [(measured(80), measured(100)), (measured(10), measured(1)), (measured(1), measured(2))]
    assert rate_ratio(pairs) == 0.8


def test_failures_of_both_sides_count() -> None:
    assert failures_in([(measured(1, failures=1), measured(1, failures=2))]) == 3


def test_a_quantile_is_one_of_the_values() -> None:
    values = [float(number) for number in range(100, 0, -1)]
    assert quantile(values, 0.99) == 99
    assert quantile(values, 0.5) == 50
    assert quantile([7.0], 0.99) == 7


@pytest.mark.process
def test_rows_finish() -> None:
    _run_to_the_end({"cold", "batch"})


@pytest.mark.chaos
def test_every_row_finishes() -> None:
    """Takes more than half a minute, so it runs with `make chaos`."""
    _run_to_the_end({"warm", *ROWS})


def _run_to_the_end(rows: set[str]) -> None:
    done = subprocess.run(
        (sys.executable, "-m", "bench", "--quick", "--json", *(f"--only={row}" for row in rows)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout, done.stderr
    outcome = json.loads(done.stdout)
    assert not outcome["skipped"]
    assert {each["row"] for each in outcome["figures"]} == rows
    assert sum(each["failures"] for each in outcome["figures"]) == 0
    assert done.returncode == (0 if outcome["kept"] else 1)
