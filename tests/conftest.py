"""Fixtures that every room's tests share: the real parts, and a broker around them."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from broker.database.schema import migrate
from broker.secret import Secret
from devstack.google_standin import GoogleStandin
from devstack.postgres import EmbeddedPostgres
from tests.support.clock import ManualClock
from tests.support.databases import LentDatabases
from tests.support.issuer import OidcIssuer, oidc_issuer
from tests.support.lossy_link import LossyLink, lossy_link
from tests.support.workloads import Trusting, open_trusting
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


@pytest.fixture
def clock() -> ManualClock:
    """A clock that stands still until the test moves it."""
    return ManualClock()


@pytest.fixture(scope="session")
def migrated_template(postgres: EmbeddedPostgres) -> str:
    """A database with the schema of this release, to be copied."""
    postgres.create_database(_TEMPLATE)
    asyncio.run(migrate(Secret(postgres.url(_TEMPLATE))))
    return _TEMPLATE


@pytest.fixture(scope="session")
def lent_databases(postgres: EmbeddedPostgres, migrated_template: str) -> Iterator[LentDatabases]:
    """Where tests borrow their databases."""
    databases = LentDatabases(postgres, migrated_template)
    yield databases
    databases.close()


@pytest.fixture
def database_name(lent_databases: LentDatabases) -> Iterator[str]:
    """A migrated database of the test's own."""
    name = lent_databases.lend()
    yield name
    lent_databases.take_back(name)


@pytest.fixture
def database_url(postgres: EmbeddedPostgres, database_name: str) -> str:
    """Its address."""
    return postgres.url(database_name)


@pytest.fixture(scope="session")
def shared_standin() -> Iterator[GoogleStandin]:
    """One Google for all tests; `standin` hands it out fresh."""
    standin = GoogleStandin()
    standin.start()
    yield standin
    standin.stop()


@pytest.fixture
def standin(shared_standin: GoogleStandin, clock: ManualClock) -> GoogleStandin:
    """A Google as on its first day, that shares the test's clock."""
    shared_standin.reset(clock=clock)
    return shared_standin


@pytest.fixture
async def world(
    tmp_path: Path, database_url: str, standin: GoogleStandin, clock: ManualClock
) -> AsyncIterator[World]:
    """The whole broker in this process, on a real PostgreSQL, with a Google that can fail."""
    async with open_world(tmp_path, database_url, standin, clock) as opened:
        yield opened


@pytest.fixture
async def linked_world(
    tmp_path: Path, database_url: str, standin: GoogleStandin, clock: ManualClock
) -> AsyncIterator[tuple[LossyLink, World]]:
    """The same, over a link to PostgreSQL that loses what the test wants lost."""
    async with (
        lossy_link(database_url) as (link, address),
        open_world(tmp_path, address, standin, clock) as world,
    ):
        yield link, world


@pytest.fixture
def issuer(clock: ManualClock) -> Iterator[OidcIssuer]:
    """An OpenID Connect issuer that shares the test's clock."""
    with oidc_issuer(clock) as running:
        yield running


@pytest.fixture
async def trusting(
    tmp_path: Path,
    database_url: str,
    standin: GoogleStandin,
    clock: ManualClock,
    issuer: OidcIssuer,
) -> AsyncIterator[Trusting]:
    """The whole broker, which trusts the issuer; `user-1` has connected an account."""
    async with open_trusting(tmp_path, database_url, standin, clock, issuer) as opened:
        yield opened
