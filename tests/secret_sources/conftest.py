"""What the tests of the secret sources share."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from datetime import timedelta

import pytest
import pytest_asyncio

from broker.clock import SystemClock
from broker.secret_sources.current import CurrentClient
from broker.secret_sources.source import ClientSource
from broker.telemetry.metrics import Metrics
from devstack.openbao import OpenBao
from tests.secret_sources.bad_vaults import NoVaults, SilentVaults
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


@pytest.fixture
def dead_address() -> Iterator[str]:
    """Bound but not listening, so that nobody else can answer there meanwhile."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}"


@pytest.fixture
def silent_vaults() -> Iterator[SilentVaults]:
    vaults = SilentVaults()
    yield vaults
    vaults.stop()


@pytest.fixture
def no_vaults() -> Iterator[NoVaults]:
    servers = NoVaults()
    yield servers
    servers.stop()
