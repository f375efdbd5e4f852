"""Fixtures that all test packages share: the real services, and a broker that uses them."""

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from broker.database.schema import migrate
from broker.secret import Secret
from devstack.google_standin import GoogleStandin
from devstack.postgres import EmbeddedPostgres
from tests.support.clock import ManualClock
from tests.support.database_copies import DatabaseCopies
from tests.support.issuer import OidcIssuer, oidc_issuer
from tests.support.lossy_link import LossyLink, lossy_link
from tests.support.workloads import IssuerWorld, open_issuer_world
from tests.support.world import World, open_world

pytest_plugins = [
    "tests.support.openbao",
    "tests.support.postgres",
    "tests.containers.fixtures",
]

_TEMPLATE = "migrated_template"

# Hypothesis would fail an example that takes 200 ms: on a busy machine that is the machine.
settings.register_profile("tests", deadline=None)
settings.load_profile("tests")


def pytest_configure() -> None:
    """Collect no garbage while pytest collects tests: hardly any of it is garbage."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Collect garbage from here on, without the modules and tests: they stay."""
    gc.freeze()
    gc.enable()


@pytest.fixture
def clock() -> ManualClock:
    """A clock that stands still until the test advances it."""
    return ManualClock()


@pytest.fixture(scope="session")
def migrated_template(postgres: EmbeddedPostgres) -> str:
    """A template database with the schema of this release."""
    postgres.create_database(_TEMPLATE)
    asyncio.run(migrate(Secret(postgres.url(_TEMPLATE))))
    return _TEMPLATE


@pytest.fixture(scope="session")
def database_copies(postgres: EmbeddedPostgres, migrated_template: str) -> Iterator[DatabaseCopies]:
    """The databases that tests use in turn."""
    databases = DatabaseCopies(postgres, migrated_template)
    yield databases
    databases.close()


@pytest.fixture
def database_name(database_copies: DatabaseCopies) -> Iterator[str]:
    """A migrated database for this test alone."""
    name = database_copies.acquire()
    yield name
    database_copies.release(name)


@pytest.fixture
def database_url(postgres: EmbeddedPostgres, database_name: str) -> str:
    """The URL of that database."""
    return postgres.url(database_name)


@pytest.fixture(scope="session")
def shared_standin() -> Iterator[GoogleStandin]:
    """One stand-in for all tests; `standin` resets it."""
    standin = GoogleStandin()
    standin.start()
    yield standin
    standin.stop()


@pytest.fixture
def standin(shared_standin: GoogleStandin, clock: ManualClock) -> GoogleStandin:
    """A stand-in in its initial state, with the test's clock."""
    shared_standin.reset(clock=clock)
    return shared_standin


@pytest.fixture
async def world(
    tmp_path: Path, database_url: str, standin: GoogleStandin, clock: ManualClock
) -> AsyncIterator[World]:
    """The whole broker in this process, with a real PostgreSQL and a Google that can fail."""
    async with open_world(tmp_path, database_url, standin, clock) as opened:
        yield opened


@pytest.fixture
async def linked_world(
    tmp_path: Path, database_url: str, standin: GoogleStandin, clock: ManualClock
) -> AsyncIterator[tuple[LossyLink, World]]:
    """A broker whose connections to PostgreSQL go through a lossy link."""
    async with (
        lossy_link(database_url) as (link, address),
        open_world(tmp_path, address, standin, clock) as world,
    ):
        yield link, world


@pytest.fixture
def issuer(clock: ManualClock) -> Iterator[OidcIssuer]:
    """An OpenID Connect issuer with the test's clock."""
    with oidc_issuer(clock) as running:
        yield running


@pytest.fixture
async def issuer_world(
    tmp_path: Path,
    database_url: str,
    standin: GoogleStandin,
    clock: ManualClock,
    issuer: OidcIssuer,
) -> AsyncIterator[IssuerWorld]:
    """The whole broker, which trusts the issuer; `user-1` has connected an account."""
    async with open_issuer_world(tmp_path, database_url, standin, clock, issuer) as opened:
        yield opened
