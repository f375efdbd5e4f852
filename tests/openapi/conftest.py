"""What the tests of the API's description share."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from broker.callers import authentication_limits as attempts
from broker.limits import public_rate_limit as public_limits
from devstack.google_standin import GoogleStandin
from devstack.postgres import EmbeddedPostgres
from tests.openapi.served import Served, serve


@pytest.fixture(scope="session")
def served(
    postgres: EmbeddedPostgres, migrated_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """One broker behind real sockets, for all the generated requests."""
    name = "openapi"
    database_url = postgres.create_database(name, template=migrated_template)
    standin = GoogleStandin()
    standin.start()
    with ExitStack() as stack:
        # Read once, as the broker starts: other tests of this process must not see them.
        with pytest.MonkeyPatch.context() as patch:
            # All that is generated comes from one address.
            patch.setattr(attempts, "FAILURE_BURST", 1_000_000)
            patch.setattr(public_limits, "REQUESTS_AT_ONCE", 1_000_000)
            folder = tmp_path_factory.mktemp("openapi")
            running = stack.enter_context(serve(folder, database_url, standin))
        yield running
    standin.stop()
    postgres.drop_database(name)
