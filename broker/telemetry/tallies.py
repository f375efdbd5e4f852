"""A counter and a histogram of plain numbers, for what is counted at each request.

The event loop is the only thread that counts and the only one that reads, so that nothing here
locks; prometheus_client's own take a lock for each number, several for each request.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector


class Tally:
    """One counter."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0

    def inc(self) -> None:
        """One more."""
        self.value += 1


class Durations:
    """One histogram of seconds."""

    __slots__ = ("_bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        """How many fell into each bucket alone; the last one has no bound."""
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        """One more took so long."""
        self.counts[bisect_left(self._bounds, seconds)] += 1
        self.total += seconds


class Tallies(Collector):
    """A counter for each combination of labels."""

    def __init__(
        self, name: str, documentation: str, labels: Sequence[str], *, registry: CollectorRegistry
    ) -> None:
        self._name = name
        self._documentation = documentation
        self._label_names = labels
        self._tallies: dict[tuple[str, ...], Tally] = {}
        registry.register(self)

    def labels(self, *values: str) -> Tally:
        """The counter of these labels; who counts often keeps it."""
        tally = self._tallies.get(values)
        if tally is None:
            tally = self._tallies[values] = Tally()
        return tally

    def describe(self) -> Iterable[Metric]:
        return [self._family()]

    def collect(self) -> Iterable[Metric]:
        family = self._family()
        for values, tally in self._tallies.items():
            family.add_metric(values, tally.value)
        return [family]

    def _family(self) -> CounterMetricFamily:
        return CounterMetricFamily(self._name, self._documentation, labels=self._label_names)


class DurationTallies(Collector):
    """A histogram of seconds for each combination of labels."""

    def __init__(
        self,
        name: str,
        documentation: str,
        labels: Sequence[str],
        *,
        buckets: Sequence[float],
        registry: CollectorRegistry,
    ) -> None:
        self._name = name
        self._documentation = documentation
        self._label_names = labels
        self._bounds = tuple(map(float, buckets))
        self._durations: dict[tuple[str, ...], Durations] = {}
        registry.register(self)

    def labels(self, *values: str) -> Durations:
        """The histogram of these labels; who observes often keeps it."""
        durations = self._durations.get(values)
        if durations is None:
            durations = self._durations[values] = Durations(self._bounds)
        return durations

    def describe(self) -> Iterable[Metric]:
        return [self._family()]

    def collect(self) -> Iterable[Metric]:
        family = self._family()
        for values, durations in self._durations.items():
            family.add_metric(values, self._cumulated(durations), durations.total)
        return [family]

    def _cumulated(self, durations: Durations) -> list[tuple[str, float]]:
        """Each bound with how many stayed within it, as Prometheus has them."""
        names = [*map(repr, self._bounds), "+Inf"]
        so_far = 0
        buckets: list[tuple[str, float]] = []
        for name, count in zip(names, durations.counts, strict=True):
            so_far += count
            buckets.append((name, so_far))
        return buckets

    def _family(self) -> HistogramMetricFamily:
        return HistogramMetricFamily(self._name, self._documentation, labels=self._label_names)
