"""Fixtures of the fault suite: a Google stand-in in real time, and three replicas."""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from devstack.google_standin import GoogleStandin
from devstack.postgres import EmbeddedPostgres
from tests.chaos.fleet import Fleet, running_fleet
from tests.support.google import google
from tests.support.postgres import UNSAFE_BUT_FAST, new_postgres_folder

__all__ = ["google"]

USERS = 9


@pytest.fixture
def own_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL server that a test may stop."""
    folder = new_postgres_folder(tmp_path_factory)
    with EmbeddedPostgres(folder, options=UNSAFE_BUT_FAST) as server:
        server.create_database("broker")
        yield server


@pytest.fixture(scope="module")
def shared_database(postgres: EmbeddedPostgres) -> Iterator[str]:
    """A database of this module only."""
    name = f"chaos_{uuid4().hex}"
    postgres.create_database(name)
    yield name
    postgres.drop_database(name)


@pytest.fixture(scope="module")
def shared_fleet(
    tmp_path_factory: pytest.TempPathFactory,
    postgres: EmbeddedPostgres,
    shared_database: str,
    google: GoogleStandin,
) -> Iterator[Fleet]:
    """Three replicas that serve all tests of the module."""
    folder: Path = tmp_path_factory.mktemp("fleet")
    with running_fleet(folder, postgres, shared_database, google, replicas=3) as fleet:
        fleet.connect(USERS)
        yield fleet


@pytest.fixture
def fleet(shared_fleet: Fleet) -> Iterator[Fleet]:
    """The three replicas; Google has no fault before and after the test."""
    shared_fleet.google.faults.clear()
    yield shared_fleet
    shared_fleet.google.faults.clear()
    shared_fleet.google.holds.release_all()
