"""Servers under the same load, by turns; and what the turns say when they are put together."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

from bench.load import Round

BROKER = "broker"


@dataclass(frozen=True, slots=True)
class Comparison:
    """The rounds of each, by name; those of one number were neighbours in time."""

    rounds: Mapping[str, tuple[Round, ...]]

    @property
    def others(self) -> list[str]:
        """What the broker is compared with."""
        return [name for name in self.rounds if name != BROKER]

    def ratios(self, other: str) -> list[float]:
        """Of answers a second, pair by pair: a machine that was busy was so for both."""
        return [a.rate / b.rate for a, b in self._pairs(other)]

    def ratio(self, other: str) -> float:
        return median(self.ratios(other))

    def cpu_ratio(self, other: str) -> float:
        """Of answers a second of processor time: what others do on the core is left out."""
        return median(b.cpu_per_answer / a.cpu_per_answer for a, b in self._pairs(other))

    @property
    def lowest(self) -> float:
        """The ratio to whichever of the others is the fastest."""
        return min(map(self.ratio, self.others))

    @property
    def failures(self) -> int:
        return sum(each.failures for each in self._all())

    @property
    def load_was_the_limit(self) -> bool:
        """Whether a server had time to spare: then the ratio says less than it seems to."""
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
    tell: Callable[[str], None],
) -> Comparison:
    """There and back again: none has always the earlier, cooler turn, or the same neighbour."""
    measured: dict[str, list[Round]] = {name: [] for name in contestants}
    for number in range(rounds):
        names = list(contestants)
        for name in names if number % 2 == 0 else reversed(names):
            measured[name].append(contestants[name]())
        rates = ", ".join(f"{name} {measured[name][-1].rate:,.0f}/s" for name in names)
        tell(f"round {number + 1} of {rounds}: {rates}")
    return Comparison({name: tuple(each) for name, each in measured.items()})
