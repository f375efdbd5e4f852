"""Fixtures of the acceptance tests: `broker serve` as a process, on real parts."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from devstack.google_standin import GoogleStandin
from devstack.openbao import OpenBao
from devstack.postgres import EmbeddedPostgres
from tests.acceptance.installation import Installation, set_up
from tests.support.browser import chromium, page
from tests.support.google import google

__all__ = ["chromium", "google", "page"]


@pytest.fixture(scope="module")
def installation(
    tmp_path_factory: pytest.TempPathFactory,
    postgres: EmbeddedPostgres,
    openbao: OpenBao,
    google: GoogleStandin,
) -> Iterator[Installation]:
    """A broker as an operator installs it: migrated, its OAuth client in OpenBao, one caller."""
    folder: Path = tmp_path_factory.mktemp("installation")
    installed = set_up(folder, postgres, openbao, google)
    with installed.serving:
        yield installed
    postgres.drop_database(installed.database_name)
