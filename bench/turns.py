"""Two things measured by turns, so that a machine that was busy was so for both."""

import math
from collections.abc import Callable
from statistics import median

from bench.load import Round


def by_turns(
    first: Callable[[], Round], second: Callable[[], Round], rounds: int
) -> list[tuple[Round, Round]]:
    """First, second, second, first, …: neither has always the earlier, cooler turn."""
    pairs = []
    for number in range(rounds):
        if number % 2 == 0:
            a, b = first(), second()
        else:
            b, a = second(), first()
        pairs.append((a, b))
    return pairs


def rate_ratio(pairs: list[tuple[Round, Round]]) -> float:
    """The median of the pairs' ratios, in answers a second."""
    return median(a.rate / b.rate for a, b in pairs)


def failures_in(pairs: list[tuple[Round, Round]]) -> int:
    return sum(a.failures + b.failures for a, b in pairs)


def quantile(values: list[float], part: float) -> float:
    """The smallest value that so large a part of them doesn't exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(part * len(ordered) - 1e-9) - 1)]
