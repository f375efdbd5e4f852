"""Two servers under the same load, by turns; and what the turns say when they are put together."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from bench.load import Round


@dataclass(frozen=True, slots=True)
class Comparison:
    """The rounds of both, in pairs that were neighbours in time."""

    broker: tuple[Round, ...]
    bare: tuple[Round, ...]

    @property
    def ratios(self) -> list[float]:
        """Of answers a second, pair by pair: a machine that was busy was so for both."""
        return [a.rate / b.rate for a, b in zip(self.broker, self.bare, strict=True)]

    @property
    def ratio(self) -> float:
        return median(self.ratios)

    @property
    def cpu_ratio(self) -> float:
        """Of answers a second of processor time: what others do on the core is left out."""
        pairs = zip(self.broker, self.bare, strict=True)
        return median(b.cpu_per_answer / a.cpu_per_answer for a, b in pairs)

    @property
    def failures(self) -> int:
        return sum(each.failures for each in (*self.broker, *self.bare))

    @property
    def load_was_the_limit(self) -> bool:
        """Whether a server had time to spare: then the ratio says less than it seems to."""
        return any(
            each.own_cpu_seconds > 0.9 * each.seconds and each.cpu_seconds < 0.9 * each.seconds
            for each in (*self.broker, *self.bare)
        )


def compare(
    broker: Callable[[], Round],
    bare: Callable[[], Round],
    *,
    rounds: int,
    tell: Callable[[str], None],
) -> Comparison:
    """Broker, bare, bare, broker, …: neither has always the earlier, cooler turn."""
    pairs: list[tuple[Round, Round]] = []
    for number in range(rounds):
        if number % 2 == 0:
            of_broker, of_bare = broker(), bare()
        else:
            of_bare, of_broker = bare(), broker()
        pairs.append((of_broker, of_bare))
        tell(
            f"round {number + 1} of {rounds}: broker {of_broker.rate:,.0f}/s, "
            f"bare {of_bare.rate:,.0f}/s, ratio {of_broker.rate / of_bare.rate:.3f}"
        )
    return Comparison(tuple(a for a, _ in pairs), tuple(b for _, b in pairs))
