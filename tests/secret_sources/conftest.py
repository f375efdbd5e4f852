"""Fixtures for the tests of the secret sources."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
import pytest_asyncio

from broker.clock import SystemClock
from broker.secret_sources.current_client import CurrentClient
from broker.secret_sources.source import ClientSource
from broker.telemetry.metrics import Metrics
from devstack.openbao import OpenBao
from tests.secret_sources.bad_vaults import FakeVaults, SilentVaults
from tests.secret_sources.client_watch import StartWatching
from tests.support.issuer import OidcIssuer, oidc_issuer
from tests.support.openbao import VaultPlace
from tests.support.projected_tokens import ProjectedToken, trust_by_jwks


@pytest.fixture
def place(openbao: OpenBao) -> VaultPlace:
    """A path in the shared server, for one test."""
    return VaultPlace.new(openbao)


@pytest.fixture(scope="session")
def jwt_issuer() -> Iterator[OidcIssuer]:
    """An issuer with the machine's clock, which OpenBao uses."""
    with oidc_issuer(SystemClock()) as started:
        yield started


@pytest.fixture(scope="session")
def jwt_server(jwt_issuer: OidcIssuer) -> Iterator[OpenBao]:
    """A server with the auth method `jwt`, which trusts the issuer."""
    with OpenBao() as started:
        trust_by_jwks(started, jwt_issuer)
        yield started


@pytest.fixture
def jwt_place(jwt_server: OpenBao) -> VaultPlace:
    """A path in that server, with a client."""
    place = VaultPlace.new(jwt_server)
    place.put("the-secret")
    return place


@pytest.fixture
def projected(jwt_issuer: OidcIssuer, tmp_path: Path) -> ProjectedToken:
    """The issuer's token in a file, which does not exist yet."""
    return ProjectedToken(jwt_issuer, tmp_path / "token")


@pytest.fixture
def written(projected: ProjectedToken) -> ProjectedToken:
    """The same, with a valid token in the file."""
    projected.write()
    return projected


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest_asyncio.fixture
async def start_watching(metrics: Metrics) -> AsyncIterator[StartWatching]:
    """Loads a client, and polls its source 20 times a second until the test ends."""
    watches: list[tuple[CurrentClient, asyncio.Task[None]]] = []

    async def start(source: ClientSource) -> CurrentClient:
        current = CurrentClient(
            source, metrics, SystemClock(), poll_every=timedelta(milliseconds=50)
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
    """Bound but not listening, so that no other program can listen there meanwhile."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}"


@pytest.fixture
def silent_vaults() -> Iterator[SilentVaults]:
    vaults = SilentVaults()
    yield vaults
    vaults.stop()


@pytest.fixture
def fake_vaults() -> Iterator[FakeVaults]:
    servers = FakeVaults()
    yield servers
    servers.stop()
