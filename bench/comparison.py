"""Compares servers under the same load, in alternating rounds."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

from bench.load import Round

BROKER = "broker"


@dataclass(frozen=True, slots=True)
class Comparison:
    """The rounds of each server; rounds with the same index ran next to each other."""

    rounds: Mapping[str, tuple[Round, ...]]

    @property
    def others(self) -> list[str]:
        """The servers that the broker is compared with."""
        return [name for name in self.rounds if name != BROKER]

    def ratios(self, other: str) -> list[float]:
        """Return the ratios of responses per second, pair by pair: a busy machine slows both."""
        return [a.rate / b.rate for a, b in self._pairs(other)]

    def ratio(self, other: str) -> float:
        return median(self.ratios(other))

    def cpu_ratio(self, other: str) -> float:
        """Return the ratio of responses per second of CPU time; other processes do not count."""
        return median(b.cpu_per_answer / a.cpu_per_answer for a, b in self._pairs(other))

    @property
    def lowest(self) -> float:
        """The ratio to the fastest other server."""
        return min(map(self.ratio, self.others))

    @property
    def failures(self) -> int:
        return sum(each.failures for each in self._all())

    @property
    def load_was_the_limit(self) -> bool:
        """True if a server was not fully busy: then the ratio is too close to 1."""
        return any(
            each.own_cpu_seconds > 0.9 * each.seconds and each.cpu_seconds < 0.9 * each.seconds
            for each in self._all()
        )

    def _pairs(self, other: str) -> list[tuple[Round, Round]]:
        return list(zip(self.rounds[BROKER], self.rounds[other], strict=True))

    def _all(self) -> list[Round]:
        return [each for rounds in self.rounds.values() for each in rounds]


def compare(
    contestants: Mapping[str, Callable[[], Round]],
    *,
    rounds: int,
    progress: Callable[[str], None],
) -> Comparison:
    """Alternate the order, so that none always runs first or after the same server."""
    measured: dict[str, list[Round]] = {name: [] for name in contestants}
    for number in range(rounds):
        names = list(contestants)
        for name in names if number % 2 == 0 else reversed(names):
            measured[name].append(contestants[name]())
        rates = ", ".join(f"{name} {measured[name][-1].rate:,.0f}/s" for name in names)
        progress(f"round {number + 1} of {rounds}: {rates}")
    return Comparison({name: tuple(each) for name, each in measured.items()})
