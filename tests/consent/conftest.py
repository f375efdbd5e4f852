"""Fixtures of the consent's tests."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from broker.secret import Secret
from devstack.google_standin import GoogleStandin
from devstack.postgres import EmbeddedPostgres
from tests.consent.harness import ConsentWorld, consent_world, empty_tables
from tests.support.clock import ManualClock


@pytest.fixture(scope="session")
def consent_database(postgres: EmbeddedPostgres, migrated_template: str) -> Secret:
    """One database for this folder: emptying it is faster than creating one per test."""
    return Secret(postgres.create_database("consent", template=migrated_template))


@pytest_asyncio.fixture
async def world(
    standin: GoogleStandin, consent_database: Secret, clock: ManualClock, tmp_path: Path
) -> AsyncIterator[ConsentWorld]:
    """Both listeners with an empty database."""
    await empty_tables(consent_database)
    async with consent_world(standin, consent_database, clock, tmp_path) as made:
        yield made
    standin.holds.release_all()
