"""Reports of a comparison, as text or JSON."""

import json
from collections.abc import Callable
from statistics import median
from typing import Any

from bench.comparison import Comparison
from bench.cores import Cores
from bench.load import Round


def as_json(comparison: Comparison, cores: Cores | None, *, at_least: float) -> str:
    """Return one JSON object; times are in microseconds."""
    document = {
        "ratio": round(comparison.lowest, 4),
        "at_least": at_least,
        "failures": comparison.failures,
        "pinned": cores is not None,
        "load_was_the_limit": comparison.load_was_the_limit,
        "medians": {name: _medians(rounds) for name, rounds in comparison.rounds.items()},
        "broker_to": {
            name: {
                "ratio": round(comparison.ratio(name), 4),
                "ratios": [round(each, 4) for each in comparison.ratios(name)],
                "cpu_ratio": round(comparison.cpu_ratio(name), 4),
            }
            for name in comparison.others
        },
    }
    return json.dumps(document, indent=2)


def as_text(comparison: Comparison, cores: Cores | None, *, at_least: float) -> str:
    """Return a table with its verdict."""
    rows = [("", "answers/s", "p50", "p99", "CPU per answer")]
    for name, rounds in comparison.rounds.items():
        of = _medians(rounds)
        rows.append(
            (
                name,
                f"{of['rate']:,.0f}",
                f"{of['p50_us'] / 1000:.2f} ms",
                f"{of['p99_us'] / 1000:.2f} ms",
                f"{of['cpu_us']:.1f} µs",
            )
        )
    table = "\n".join(
        "".join((row[0].ljust(32), *(cell.rjust(16) for cell in row[1:]))) for row in rows
    )
    verdict = "passed" if comparison.lowest >= at_least else "too low"
    outcome = f"ratio {comparison.lowest:.3f}; at least {at_least:.2f}: {verdict}"
    lines = [table, "", *(_ratio_to(name, comparison) for name in comparison.others), outcome]
    if cores is None:
        lines.append(
            "Servers and load generator were not pinned to CPU cores: less reliable figures."
        )
    if comparison.load_was_the_limit:
        lines.append(
            "The load generator was the bottleneck in some round; the true ratio is lower."
        )
    if comparison.failures:
        lines.append(f"{comparison.failures} requests failed; the figures are invalid.")
    return "\n".join(lines)


def _ratio_to(name: str, comparison: Comparison) -> str:
    ratios = comparison.ratios(name)
    return (
        f"broker ÷ {name}: {comparison.ratio(name):.3f} (rounds from {min(ratios):.3f} to "
        f"{max(ratios):.3f}; by CPU time {comparison.cpu_ratio(name):.3f})"
    )


def _medians(rounds: tuple[Round, ...]) -> dict[str, Any]:
    def of(value: Callable[[Round], float]) -> float:
        return round(median(value(each) for each in rounds), 1)

    return {
        "rate": of(lambda each: each.rate),
        "p50_us": of(lambda each: each.p50 * 1e6),
        "p99_us": of(lambda each: each.p99 * 1e6),
        "cpu_us": of(lambda each: each.cpu_per_answer * 1e6),
    }
