"""PgBouncer in transaction mode: no session state, and no notifications."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from devstack.google_standin import GoogleStandin
from devstack.postgres import EmbeddedPostgres
from tests.chaos.fleet import TOKEN_LIFETIME, Fleet, running_fleet
from tests.chaos.load import ask_concurrently, load_on
from tests.chaos.pgbouncer import BINARY, transaction_pooler
from tests.support.processes import wait_until

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.skipif(BINARY is None, reason="PgBouncer is not installed"),
]


@pytest.fixture
def fleet(tmp_path: Path, own_postgres: EmbeddedPostgres, google: GoogleStandin) -> Iterator[Fleet]:
    """Three replicas that share four connections to PostgreSQL."""
    google.reset()
    with transaction_pooler(own_postgres, tmp_path, size=4) as port:
        url = own_postgres.url("broker").replace(f":{own_postgres.port}/", f":{port}/")
        with running_fleet(
            tmp_path, own_postgres, "broker", google, replicas=3, database_url=url
        ) as fleet:
            fleet.connect(9)
            yield fleet


def test_replicas_behind_a_transaction_pooler(fleet: Fleet) -> None:
    with load_on(fleet) as record:
        time.sleep(2 * TOKEN_LIFETIME)
        fleet.assert_recovered()
    record.assert_sound()
    for replica in fleet.replicas:
        assert "through a pooler" in replica.output
    (user,) = fleet.connect()
    fleet.let_expire([user])
    before = fleet.refreshes()
    answers = asyncio.run(ask_concurrently(fleet, user, 60))
    assert {answer.status for answer in answers} == {200}
    assert fleet.refreshes() == before + 1
    for number in range(3):
        assert fleet.token(user, number, min_ttl=0).status_code == 200
    assert fleet.revoke(user).status_code == 204
    for number in range(3):
        wait_until(
            "it is refused",
            lambda number=number: fleet.token(user, number, min_ttl=0).status_code == 404,  # type: ignore[misc]
            within=1,
        )


def test_a_pooler_whose_server_crashes(fleet: Fleet, own_postgres: EmbeddedPostgres) -> None:
    with load_on(fleet) as record:
        own_postgres.stop("immediate")
        time.sleep(TOKEN_LIFETIME)
        own_postgres.start()
        fleet.assert_recovered()
    record.assert_sound(allowed={"storage_unavailable"}, among_replicas=False)
