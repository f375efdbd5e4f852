"""What the tests of the secret sources share."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta

import pytest
import pytest_asyncio

from broker.clock import SystemClock
from broker.devstack.openbao import OpenBao
from broker.secret_sources.current import CurrentClient
from broker.secret_sources.source import ClientSource
from broker.telemetry.metrics import Metrics
from tests.secret_sources.watching import StartWatching
from tests.support.openbao import VaultPlace


@pytest.fixture
def place(openbao: OpenBao) -> VaultPlace:
    """A path of the test's own in the shared server."""
    return VaultPlace.new(openbao)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest_asyncio.fixture
async def start_watching(metrics: Metrics) -> AsyncIterator[StartWatching]:
    """Loads a client, and watches its source 20 times a second until the test ends."""
    watches: list[tuple[CurrentClient, asyncio.Task[None]]] = []

    async def start(source: ClientSource) -> CurrentClient:
        current = CurrentClient(
            source, metrics, SystemClock(), look_every=timedelta(milliseconds=50)
        )
        await current.load()
        watches.append((current, asyncio.create_task(current.watch())))
        return current

    yield start
    for current, task in watches:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await current.aclose()
