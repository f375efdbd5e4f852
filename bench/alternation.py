"""Measures two things alternately, so that a busy machine slows both."""

import math
from collections.abc import Callable
from statistics import median

from bench.load import Round


def alternate(
    first: Callable[[], Round], second: Callable[[], Round], rounds: int
) -> list[tuple[Round, Round]]:
    """Measure in the order first, second, second, first, …, so that neither always runs first."""
    pairs = []
    for number in range(rounds):
        if number % 2 == 0:
            a, b = first(), second()
        else:
            b, a = second(), first()
        pairs.append((a, b))
    return pairs


def rate_ratio(pairs: list[tuple[Round, Round]]) -> float:
    """Return the median of the pairs' ratios of responses per second."""
    return median(a.rate / b.rate for a, b in pairs)


def failures_in(pairs: list[tuple[Round, Round]]) -> int:
    return sum(a.failures + b.failures for a, b in pairs)


def quantile(values: list[float], part: float) -> float:
    """Return the quantile: the smallest value that this part of the values does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(part * len(ordered) - 1e-9) - 1)]
