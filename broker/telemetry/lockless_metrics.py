"""Counters and histograms without locks, for the metrics of each request.

Only the event loop's thread counts and reads. prometheus_client's own classes take a lock for each
value, several for each request.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector


class LocklessCounter:
    """One time series of a counter."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0

    def inc(self) -> None:
        """Count one more."""
        self.value += 1


class LocklessHistogram:
    """One time series of a histogram of seconds."""

    __slots__ = ("_bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        """Observations in each bucket alone; the last bucket has no upper bound."""
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        """Count one more duration."""
        self.counts[bisect_left(self._bounds, seconds)] += 1
        self.total += seconds


class CounterFamily(Collector):
    """A counter for each combination of label values."""

    def __init__(
        self, name: str, documentation: str, labels: Sequence[str], *, registry: CollectorRegistry
    ) -> None:
        self._name = name
        self._documentation = documentation
        self._label_names = labels
        self._counters: dict[tuple[str, ...], LocklessCounter] = {}
        registry.register(self)

    def labels(self, *values: str) -> LocklessCounter:
        """Return the counter of these label values. Keep it where it is used often."""
        counter = self._counters.get(values)
        if counter is None:
            counter = self._counters[values] = LocklessCounter()
        return counter

    def describe(self) -> Iterable[Metric]:
        return [self._family()]

    def collect(self) -> Iterable[Metric]:
        family = self._family()
        for values, counter in self._counters.items():
            family.add_metric(values, counter.value)
        return [family]

    def _family(self) -> CounterMetricFamily:
        return CounterMetricFamily(self._name, self._documentation, labels=self._label_names)


class HistogramFamily(Collector):
    """A histogram of seconds for each combination of label values."""

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
        self._histograms: dict[tuple[str, ...], LocklessHistogram] = {}
        registry.register(self)

    def labels(self, *values: str) -> LocklessHistogram:
        """Return the histogram of these label values. Keep it where it is used often."""
        histogram = self._histograms.get(values)
        if histogram is None:
            histogram = self._histograms[values] = LocklessHistogram(self._bounds)
        return histogram

    def describe(self) -> Iterable[Metric]:
        return [self._family()]

    def collect(self) -> Iterable[Metric]:
        family = self._family()
        for values, histogram in self._histograms.items():
            family.add_metric(values, self._cumulative(histogram), histogram.total)
        return [family]

    def _cumulative(self, histogram: LocklessHistogram) -> list[tuple[str, float]]:
        """Return each upper bound with the number of observations up to it."""
        names = [*map(repr, self._bounds), "+Inf"]
        so_far = 0
        buckets: list[tuple[str, float]] = []
        for name, count in zip(names, histogram.counts, strict=True):
            so_far += count
            buckets.append((name, so_far))
        return buckets

    def _family(self) -> HistogramMetricFamily:
        return HistogramMetricFamily(self._name, self._documentation, labels=self._label_names)
