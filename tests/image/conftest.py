"""Fixtures of the image's tests: an installation whose broker runs in a container."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from devstack.google_standin import GoogleStandin
from devstack.postgres import EmbeddedPostgres
from tests.containers.engine import Engine
from tests.image.installation import Installation, set_up
from tests.support.browser import chromium, page
from tests.support.google import google

__all__ = ["chromium", "google", "page"]


@pytest.fixture(scope="module")
def installation(
    tmp_path_factory: pytest.TempPathFactory,
    engine: Engine,
    image: str,
    postgres: EmbeddedPostgres,
    google: GoogleStandin,
) -> Iterator[Installation]:
    """Migrated and serving, in containers with the fewest rights."""
    folder: Path = tmp_path_factory.mktemp("installation")
    installed = set_up(folder, engine, image, postgres, google)
    yield installed
    installed.serving.remove()
