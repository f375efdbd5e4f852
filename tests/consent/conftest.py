"""What the tests of the consent share."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
import pytest_asyncio

from broker.google.http import google_http_client
from broker.secret import Secret
from devstack.google_standin import GoogleStandin
from devstack.postgres import EmbeddedPostgres
from tests.consent.harness import ConsentWorld, consent_world, forget_everything
from tests.support.clock import ManualClock


@pytest.fixture(scope="session")
def consent_database(postgres: EmbeddedPostgres, migrated_template: str) -> Secret:
    """One database for this room: emptying it is faster than making another for each test."""
    return Secret(postgres.create_database("consent", template=migrated_template))


@pytest_asyncio.fixture(scope="session")
async def way_to_google() -> AsyncIterator[httpx2.AsyncClient]:
    """Reading the trust store takes longer than most tests here."""
    async with google_http_client() as http:
        yield http


@pytest_asyncio.fixture
async def world(
    standin: GoogleStandin,
    consent_database: Secret,
    clock: ManualClock,
    way_to_google: httpx2.AsyncClient,
    tmp_path: Path,
) -> AsyncIterator[ConsentWorld]:
    """The consent's parts, wired by hand, so that tests can reach each."""
    await forget_everything(consent_database)
    async with consent_world(standin, consent_database, clock, way_to_google, tmp_path) as made:
        yield made
    standin.holds.release_all()
