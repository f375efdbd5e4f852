"""The measurement of the event loop's lag."""

import asyncio
import time

from prometheus_client import CollectorRegistry, Histogram

from broker.telemetry.loop_lag import SAMPLE_SECONDS, LoopLag

_BLOCKED_SECONDS = 0.3
"""Longer than a sample, so that a timer falls due within it."""


async def test_a_blocked_loop_shows_as_lag() -> None:
    registry = CollectorRegistry()
    histogram = Histogram("lag_seconds", "Lag.", buckets=(0.04, 2.5), registry=registry)
    lag = LoopLag(histogram)
    time.sleep(SAMPLE_SECONDS + _BLOCKED_SECONDS)  # noqa: ASYNC251  (the fault itself)
    await asyncio.sleep(0.01)
    lag.close()
    assert registry.get_sample_value("lag_seconds_count") == 1
    assert registry.get_sample_value("lag_seconds_bucket", {"le": "0.04"}) == 0
    assert (registry.get_sample_value("lag_seconds_sum") or 0) >= _BLOCKED_SECONDS


async def test_after_close_nothing_is_measured() -> None:
    registry = CollectorRegistry()
    histogram = Histogram("lag_seconds", "Lag.", registry=registry)
    LoopLag(histogram).close()
    time.sleep(SAMPLE_SECONDS + 0.05)  # noqa: ASYNC251  (a timer would be due now)
    await asyncio.sleep(0.01)
    assert registry.get_sample_value("lag_seconds_count") == 0
